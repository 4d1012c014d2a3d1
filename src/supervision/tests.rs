use actix::{Context, System};

use super::*;

struct Fragile {
    _lifeline: Lifeline,
}

impl Actor for Fragile {
    type Context = Context<Self>;
}

impl Handler<Panic> for Fragile {
    type Result = ();
    fn handle(&mut self, _: Panic, _: &mut Context<Self>) {
        Panic::now();
    }
}

#[derive(Message)]
#[rtype(result = "u8")]
struct Ping;

impl Handler<Ping> for Fragile {
    type Result = u8;
    fn handle(&mut self, _: Ping, _: &mut Context<Self>) -> u8 {
        1
    }
}

/// A system whose clock jumps to the next timer as soon as nothing else is left to do.
fn in_virtual_time<F: Future>(future: F) -> F::Output {
    let system = System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
    });
    system.block_on(future)
}

fn supervised(guardian: &Guardian) -> (Seat<Fragile>, Leash) {
    let seat = Seat::<Fragile>::default();
    let leash = guardian.supervise(ActorKind::Probe, "fragile".into(), &seat, |lifeline| {
        Fragile { _lifeline: lifeline }.start()
    });
    (seat, leash)
}

async fn answers(seat: &Seat<Fragile>) -> bool {
    let address = seat.occupant.load_full();
    match address {
        Some(address) => address.send(Ping).await.is_ok(),
        None => false,
    }
}

#[test]
fn an_actor_that_panicked_comes_back_and_is_counted() {
    in_virtual_time(async {
        let mut registry = Registry::default();
        let metrics = SupervisionMetrics::register(&mut registry);
        let (guardian, work) = Guardian::new(Patience::default(), metrics);
        actix::spawn(work);
        let (seat, _leash) = supervised(&guardian);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(answers(&seat).await);
        seat.try_send(Panic).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!answers(&seat).await);
        tokio::time::sleep(Patience::default().first_delay).await;
        assert!(answers(&seat).await);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("actor_restarts_total{actor=\"Probe\"} 1"), "{text}");
    });
}

#[test]
fn the_guardian_gives_up_on_an_actor_that_keeps_dying() {
    in_virtual_time(async {
        let (guardian, work) = Guardian::new(Patience::default(), SupervisionMetrics::default());
        let work = actix::spawn(work);
        let (seat, _leash) = supervised(&guardian);
        let mut deaths = 0;
        while !work.is_finished() {
            deaths += usize::from(seat.try_send(Panic).is_ok());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(work.await.unwrap().deaths, Patience::default().most_deaths);
        assert_eq!(deaths, Patience::default().most_deaths);
    });
}

#[test]
fn an_actor_whose_leash_was_dropped_stays_dead() {
    in_virtual_time(async {
        let (guardian, work) = Guardian::new(Patience::default(), SupervisionMetrics::default());
        actix::spawn(work);
        let (seat, leash) = supervised(&guardian);
        tokio::time::sleep(Duration::from_millis(1)).await;
        drop(leash);
        seat.try_send(Panic).unwrap();
        tokio::time::sleep(Duration::from_mins(2)).await;
        assert!(!answers(&seat).await);
    });
}

#[test]
fn the_wait_doubles_up_to_the_longest() {
    let patience = Patience::default();
    let waits: Vec<_> = (1..patience.most_deaths).map(|deaths| patience.delay(deaths).unwrap()).collect();
    assert!(waits.windows(2).all(|pair| pair[1] == (pair[0] * 2).min(patience.longest_delay)));
    assert_eq!(patience.delay(patience.most_deaths), None);
}
