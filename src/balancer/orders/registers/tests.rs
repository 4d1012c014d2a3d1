use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::balancer::orders::{Order, OrderName, OrderRequest};

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn order(name: OrderName, weight: Option<u32>) -> Order {
    OrderRequest { order: name, weight, note: None, until: None }.validate(NOW).unwrap()
}

fn id(number: usize) -> BackendId {
    list::parse_address(&format!("server{number}:80")).unwrap()
}

/// The hash of orders in the engine, with the rule of its script.
#[derive(Clone, Default)]
struct Hash(BTreeMap<String, String>);

impl Hash {
    fn store_newer(&mut self, registers: &[OrderRegister]) {
        for register in registers {
            let (field, value) = (register.field(), register.value());
            let is_register = |old: &String| {
                old.len() > 20
                    && old.as_bytes()[..20].iter().all(u8::is_ascii_digit)
                    && old.as_bytes()[20] == b' '
            };
            if self.0.get(&field).is_none_or(|old| !is_register(old) || *old < value) {
                self.0.insert(field, value);
            }
        }
    }

    fn registers(&self) -> Vec<OrderRegister> {
        self.0
            .iter()
            .filter_map(|(field, value)| OrderRegister::parse(field.as_bytes(), value.as_bytes()))
            .collect()
    }
}

/// Plays a random schedule of orders, partitions, lost messages and engines that restart empty or with old data.
fn play(seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let count = random.random_range(2..=5);
    let mut books = vec![OrderBook::default(); count];
    let (mut engine, mut old) = (Hash::default(), Hash::default());
    let mut is_connected = vec![true; count];
    let mut newest: BTreeMap<String, (OrderVersion, Option<Override>)> = BTreeMap::new();
    for tick in 0..100 {
        let is_healed = tick >= 92;
        if !is_healed {
            for connected in &mut is_connected {
                if random.random_bool(0.05) {
                    *connected = !*connected;
                }
            }
            match random.random_range(0..100) {
                0 => engine = Hash::default(),
                1 => engine = old.clone(),
                2 => old = engine.clone(),
                3 => drop(engine.0.insert("weight http://server0:80".to_owned(), "zzz".to_owned())),
                _ => {}
            }
            if random.random_bool(0.2) {
                let (balancer, backend) = (random.random_range(0..count), random.random_range(0..4));
                let order = match random.random_range(0..4) {
                    0 => order(OrderName::Drain, None),
                    1 => order(OrderName::Disable, None),
                    2 => order(OrderName::Enable, None),
                    _ => order(OrderName::Weight, Some(random.random_range(1..=1000))),
                };
                let name = format!("b{balancer}");
                let book = books[balancer].with(&[id(backend)], &order, "test", Some(&name), NOW).unwrap();
                for register in book.registers() {
                    let value = (register.version.clone(), register.order.as_ref().map(|order| order.effect));
                    let known = newest.entry(register.field()).or_insert_with(|| value.clone());
                    if known.0 < value.0 {
                        *known = value;
                    }
                }
                books[balancer] = book;
            }
        }
        for balancer in 0..count {
            if !is_healed && (!is_connected[balancer] || random.random_bool(0.2)) {
                continue;
            }
            let before: BTreeMap<_, _> =
                books[balancer].registers().map(|own| (own.field(), own.version)).collect();
            let (book, newer) = books[balancer].reconcile(&engine.registers(), NOW);
            if let Some(book) = book {
                books[balancer] = book;
            }
            for own in books[balancer].registers() {
                let earlier = before.get(&own.field());
                assert!(earlier.is_none_or(|version| *version <= own.version), "an order was undone");
            }
            // An upload may be lost.
            if is_healed || random.random_bool(0.8) {
                engine.store_newer(&newer);
            }
        }
    }
    for book in &books {
        assert_eq!(book.digest(), books[0].digest(), "seed {seed}");
        let registers =
            |book: &OrderBook| book.registers().map(|it| (it.field(), it)).collect::<BTreeMap<_, _>>();
        assert_eq!(registers(book), registers(&books[0]), "seed {seed}");
    }
    for register in books[0].registers() {
        let (version, effect) = &newest[&register.field()];
        assert_eq!(
            (&register.version, register.order.map(|order| order.effect)),
            (version, *effect),
            "seed {seed}"
        );
    }
}

/// Healing takes eight ticks of 250 ms.
#[test]
fn orders_converge_within_two_seconds_of_healing_on_a_hundred_random_schedules() {
    (0..100).for_each(play);
}

#[test]
fn an_order_that_has_ended_stays_ended() {
    let drain = order(OrderName::Drain, None);
    let first = OrderBook::default().with(&[id(0)], &drain, "test", Some("a"), NOW).unwrap();
    let (taken, newer) = OrderBook::default().reconcile(&first.registers().collect::<Vec<_>>(), NOW);
    assert_eq!((taken.as_ref(), newer.len()), (Some(&first), 0));
    let ended = first.with(&[id(0)], &order(OrderName::Enable, None), "test", Some("b"), NOW).unwrap();
    let (changed, newer) = ended.reconcile(&first.registers().collect::<Vec<_>>(), NOW);
    assert_eq!((changed, newer.len()), (None, 1));
    let (changed, _) = first.reconcile(&newer, NOW);
    assert_eq!(changed.unwrap().of(&id(0)), None);
}

#[test]
fn the_end_of_an_order_at_its_time_is_not_a_difference() {
    let request =
        OrderRequest { order: OrderName::Drain, weight: None, note: None, until: Some("1h".to_owned()) };
    let drain = request.validate(NOW).unwrap();
    let book = OrderBook::default().with(&[id(0)], &drain, "test", Some("a"), NOW).unwrap();
    let ended = book.without_ended(NOW + Duration::from_hours(2)).unwrap();
    assert_eq!(ended.digest(), book.digest());
    let later = NOW + Duration::from_hours(2);
    assert_eq!(ended.reconcile(&book.registers().collect::<Vec<_>>(), later), (None, Vec::new()));
}

#[test]
fn an_invalid_register_is_refused() {
    let book = OrderBook::default()
        .with(&[id(0)], &order(OrderName::Weight, Some(7)), "me", Some("a"), NOW)
        .unwrap();
    let register = book.registers().next().unwrap();
    let (field, value) = (register.field(), register.value());
    assert_eq!(OrderRegister::parse(field.as_bytes(), value.as_bytes()), Some(register));
    for (from, to) in [
        ("\"weight\":7", "\"weight\":0"),
        ("\"weight\":7", "\"weight\":70000"),
        ("server0", "server1"),
        ("http://server0:80", "x"),
        ("00000000000000000001", "00000000000000000002"),
        ("\"given_by\":\"me\"", "\"given_by\":\"\\u001b[31m\""),
        ("\"kind\":\"weight\"", "\"kind\":\"withdrawal\""),
        ("\"counter\":1", "\"counter\":18446744073709551615"),
        ("{", ""),
    ] {
        let changed = value.replace(from, to);
        assert_ne!(changed, value);
        assert_eq!(OrderRegister::parse(field.as_bytes(), changed.as_bytes()), None, "{changed}");
    }
}
