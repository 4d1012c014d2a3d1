//! The actor with the real client of the engine in virtual time. The engine is in memory.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use actix::{Handler, MessageResult, System};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::*;
use crate::balancer::backends::list;
use crate::balancer::fleet::outbox::Outbox;
use crate::balancer::orders::{OrderName, OrderRequest};
use crate::engine::{FleetSettings, RawFleetSettings};
use crate::settings;

/// The connection of one balancer to the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Works,
    /// Packets are lost.
    Hangs,
    Refuses,
}

/// The content of the engine.
#[derive(Debug, Clone, Default)]
struct Content {
    records: Vec<(u64, Vec<u8>)>,
    orders: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Default)]
struct MemoryEngine {
    content: RefCell<Content>,
    latest: Cell<u64>,
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn array(items: &[Vec<u8>]) -> Vec<u8> {
    [format!("*{}\r\n", items.len()).into_bytes(), items.concat()].concat()
}

impl MemoryEngine {
    /// Carries out a command of the actor, and returns the answer.
    fn carry_out(&self, words: &[Vec<u8>]) -> Vec<u8> {
        let Content { records, orders } = &mut *self.content.borrow_mut();
        let last = words.last().unwrap();
        match &*words[0] {
            b"XADD" => {
                self.latest.set(self.latest.get() + 1);
                records.push((self.latest.get(), last.clone()));
                bulk(format!("{}-0", self.latest.get()).as_bytes())
            }
            b"XREAD" => {
                let position = str::from_utf8(last).unwrap().split('-').next().unwrap().parse().unwrap();
                let entry = |(id, record): &(u64, Vec<u8>)| {
                    array(&[bulk(format!("{id}-0").as_bytes()), array(&[bulk(b"r"), bulk(record)])])
                };
                let newer = records.iter().filter(|(id, _)| *id > position);
                let found: Vec<_> = newer.take(RECORDS_PER_READ).map(entry).collect();
                if found.is_empty() {
                    return b"*-1\r\n".to_vec();
                }
                array(&[array(&[bulk(b"records"), array(&found)])])
            }
            b"HSCAN" => {
                let fields = orders.iter().flat_map(|(field, value)| [bulk(field), bulk(value)]);
                array(&[bulk(b"0"), array(&fields.collect::<Vec<_>>())])
            }
            b"EVAL" => {
                assert_eq!(words[1], STORE_NEWER.as_bytes());
                for pair in words[4..].chunks(2) {
                    if orders.get(&pair[0]).is_none_or(|old| *old < pair[1]) {
                        orders.insert(pair[0].clone(), pair[1].clone());
                    }
                }
                b":1\r\n".to_vec()
            }
            b"PEXPIRE" => b":1\r\n".to_vec(),
            other => panic!("{other:?}"),
        }
    }

    /// Serves one connection.
    async fn serve(self: Rc<Self>, link: Rc<Cell<Link>>, stream: DuplexStream, mut random: SmallRng) {
        let mut stream = BufReader::new(stream);
        while let Ok(words) = read_command(&mut stream).await {
            sleep(Duration::from_millis(random.random_range(0..10))).await;
            while link.get() == Link::Hangs {
                // The system repeats lost packets.
                sleep(Duration::from_millis(random.random_range(200..1000))).await;
            }
            if link.get() == Link::Refuses || stream.write_all(&self.carry_out(&words)).await.is_err() {
                return;
            }
        }
    }
}

async fn read_command(stream: &mut BufReader<DuplexStream>) -> io::Result<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    for _ in 0..read_number(stream).await? {
        let mut word = vec![0; read_number(stream).await? + 2];
        stream.read_exact(&mut word).await?;
        word.truncate(word.len() - 2);
        words.push(word);
    }
    Ok(words)
}

async fn read_number(stream: &mut BufReader<DuplexStream>) -> io::Result<usize> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    line.trim_end().get(1..).and_then(|number| number.parse().ok()).ok_or(io::ErrorKind::UnexpectedEof.into())
}

/// Has the news of one balancer, in place of a `RankingActor`.
struct NewsSource(Rc<RefCell<Outbox>>);

impl Actor for NewsSource {
    type Context = Context<Self>;
}

impl Handler<FleetExchange> for NewsSource {
    type Result = MessageResult<FleetExchange>;

    fn handle(&mut self, exchange: FleetExchange, _: &mut Context<Self>) -> Self::Result {
        let (mut outbox, now) = (self.0.borrow_mut(), Instant::now());
        let news = (exchange.asks && outbox.is_due(now)).then(|| outbox.take(Vec::new(), now));
        MessageResult(news.map(|(period, backends)| OwnNews { period, list: 0, backends }))
    }
}

struct SimulatedBalancer {
    orders: Arc<Orders>,
    link: Rc<Cell<Link>>,
}

impl SimulatedBalancer {
    fn start(name: &str, engine: &Rc<MemoryEngine>, random: &mut SmallRng) -> Self {
        let (orders, mut changes) = Orders::open(None, None, Some(name.into()), SystemTime::now());
        let (orders, outbox) = (Arc::new(orders), Rc::new(RefCell::new(Outbox::new(Instant::now()))));
        let ranking = NewsSource(Rc::clone(&outbox)).start().recipient();
        actix_rt::spawn(async move {
            while let Some(change) = changes.recv().await {
                outbox.borrow_mut().hurry();
                change.done.send(()).unwrap();
            }
        });
        let settings: RawFleetSettings = settings::section("fleet", Vec::new()).unwrap();
        let plan = FleetActor {
            identity: FleetIdentity { name: name.into(), boot: random.random(), probers: 2 },
            zone: "".into(),
            engine: FleetSettings::try_from(settings).unwrap().at("redis://engine".parse().unwrap()),
            resolver: Resolver::default(),
            ranking,
            orders: Arc::clone(&orders),
            metrics: FleetMetrics::default(),
            started_at: Instant::now(),
            number: 0,
        };
        let (connections, mut accepted) = mpsc::unbounded_channel();
        let mut task = FleetTask::new(plan);
        task.engine.simulated = Some(connections);
        task.random = SmallRng::from_rng(random);
        actix_rt::spawn(task.run());
        let link = Rc::new(Cell::new(Link::Works));
        let (engine, own, mut random) = (Rc::clone(engine), Rc::clone(&link), SmallRng::from_rng(random));
        actix_rt::spawn(async move {
            while let Some(stream) = accepted.recv().await {
                let random = SmallRng::from_rng(&mut random);
                actix_rt::spawn(Rc::clone(&engine).serve(Rc::clone(&own), stream, random));
            }
        });
        Self { orders, link }
    }

    /// Gives a random order. Adds all registers that are newer to `newest`.
    async fn give_order(&self, newest: &mut Registers, random: &mut SmallRng) {
        let (order, weight) = match random.random_range(0..4) {
            0 => (OrderName::Drain, None),
            1 => (OrderName::Disable, None),
            2 => (OrderName::Enable, None),
            _ => (OrderName::Weight, Some(random.random_range(1..=1000))),
        };
        let request = OrderRequest { order, weight, note: None, until: None };
        let order = request.validate(SystemTime::now()).unwrap();
        let backend = list::parse_address(&format!("server{}:80", random.random_range(0..4))).unwrap();
        self.orders.give(vec![backend], order, "test".to_owned()).await.unwrap();
        for (field, value) in self.registers() {
            let known = newest.entry(field).or_default();
            *known = value.max(std::mem::take(known));
        }
    }

    fn registers(&self) -> Registers {
        self.orders.book().registers().map(|register| (register.field(), register.value())).collect()
    }
}

/// All registers by their names. Of two values of one register, the newer one is greater.
type Registers = BTreeMap<String, String>;

/// Plays a random schedule of orders, partitions, and engines that lose their content or restore an earlier one.
async fn play(seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let engine = Rc::new(MemoryEngine::default());
    let names = ["b0", "b1", "b2", "b3", "b4"];
    let fleet: Vec<_> = names[..random.random_range(2..=5)]
        .iter()
        .map(|name| SimulatedBalancer::start(name, &engine, &mut random))
        .collect();
    let (mut newest, mut earlier) = (Registers::new(), Content::default());
    for _ in 0..15 {
        let balancer = &fleet[random.random_range(0..fleet.len())];
        match random.random_range(0..12) {
            0 | 1 => balancer.link.set(Link::Hangs),
            2 => balancer.link.set(Link::Refuses),
            3 | 4 => balancer.link.set(Link::Works),
            5 => earlier = engine.content.borrow().clone(),
            6 => *engine.content.borrow_mut() = earlier.clone(),
            7 => *engine.content.borrow_mut() = Content::default(),
            _ => balancer.give_order(&mut newest, &mut random).await,
        }
        sleep(Duration::from_millis(random.random_range(0..1000))).await;
    }
    let is_in_force = |newest: &Registers, event: &str| {
        for (balancer, name) in fleet.iter().zip(names) {
            assert_eq!(balancer.registers(), *newest, "seed {seed}, {name} after {event}");
        }
    };
    for balancer in &fleet {
        balancer.link.set(Link::Works);
    }
    sleep(Duration::from_secs(2)).await;
    is_in_force(&newest, "the partitions");
    sleep(Duration::from_millis(random.random_range(0..1000))).await;
    fleet[0].give_order(&mut newest, &mut random).await;
    sleep(Duration::from_secs(1)).await;
    is_in_force(&newest, "an order");
}

#[test]
fn an_order_is_in_force_after_1_s_and_after_a_partition_after_2_s_on_a_hundred_schedules() {
    for seed in 0..100 {
        let system = System::with_tokio_rt(|| {
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
        });
        system.block_on(play(seed));
    }
}
