use actix::{AsyncContext, Handler, Message, System};

use super::*;

/// Counts the numbers it receives and panics at 0.
#[derive(Default)]
struct Fragile {
    sum: u32,
    restarts: u32,
}

impl Actor for Fragile {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        // A timer from before a restart must not fire after it.
        let life = self.restarts;
        ctx.run_later(Duration::from_hours(1), move |actor, _| assert_eq!(actor.restarts, life));
    }
}

impl Supervised for Fragile {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.restarts += 1;
    }
}

#[derive(Message)]
#[rtype(result = "(u32, u32)")]
struct Add(u32);

impl Handler<Add> for Fragile {
    type Result = actix::MessageResult<Add>;

    fn handle(&mut self, Add(number): Add, _: &mut Context<Self>) -> Self::Result {
        assert!(number > 0, "0 makes this actor panic");
        self.sum += number;
        actix::MessageResult((self.sum, self.restarts))
    }
}

/// Runs with a clock that advances to the next timer once all tasks wait.
fn in_virtual_time<F: Future>(future: F) -> F::Output {
    let system = System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
    });
    system.block_on(future)
}

fn supervisor() -> Supervisor {
    Supervisor::new(RestartPolicy::default(), SupervisionMetrics::default())
}

fn fragile(supervisor: &Supervisor) -> Addr<Fragile> {
    supervisor.start(ActorKind::Probe, "fragile", Fragile::default())
}

#[test]
fn a_restarted_actor_keeps_address_state_and_waiting_messages() {
    in_virtual_time(async {
        let mut registry = Registry::default();
        let metrics = SupervisionMetrics::register(&mut registry);
        let address = fragile(&Supervisor::new(RestartPolicy::default(), metrics));
        assert_eq!(address.send(Add(1)).await.unwrap(), (1, 0));
        address.do_send(Add(0));
        // These messages are sent before the restart and answered after it.
        let waiting = [address.send(Add(2)), address.send(Add(3))];
        let answers = futures_util::future::join_all(waiting).await;
        assert_eq!(answers.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [(3, 1), (6, 1)]);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("actor_restarts_total{actor=\"Probe\"} 1"), "{text}");
        sleep(Duration::from_hours(2)).await;
        assert_eq!(address.send(Add(1)).await.unwrap(), (7, 1));
    });
}

#[test]
fn the_sender_of_the_message_that_caused_the_panic_gets_an_error() {
    in_virtual_time(async {
        let address = fragile(&supervisor());
        assert!(address.send(Add(0)).await.is_err());
        assert_eq!(address.send(Add(1)).await.unwrap(), (1, 1));
    });
}

#[test]
fn an_injected_panic_restarts_every_actor_of_its_kind_and_no_other() {
    in_virtual_time(async {
        let supervisor = supervisor();
        let probes = [fragile(&supervisor), fragile(&supervisor)];
        let ranking = supervisor.start(ActorKind::Ranking, "other", Fragile::default());
        sleep(Duration::from_millis(1)).await;
        supervisor.inject_panic(ActorKind::Probe);
        for probe in &probes {
            assert_eq!(probe.send(Add(1)).await.unwrap(), (1, 1));
        }
        assert_eq!(ranking.send(Add(1)).await.unwrap(), (1, 0));
    });
}

#[test]
fn repeated_panics_are_a_failure() {
    in_virtual_time(async {
        let supervisor = supervisor();
        let address = fragile(&supervisor);
        for _ in 1..RestartPolicy::default().most_panics {
            assert!(address.send(Add(0)).await.is_err());
            address.send(Add(1)).await.unwrap();
        }
        assert!(address.send(Add(0)).await.is_err());
        let message = supervisor.failed().await.to_string();
        assert!(message.starts_with("ProbeActor fragile panicked 10 times within 60s"), "{message}");
        assert!(address.send(Add(1)).await.is_err());
    });
}

#[test]
fn panics_that_are_far_apart_are_not_a_failure() {
    in_virtual_time(async {
        let supervisor = supervisor();
        let address = fragile(&supervisor);
        for restarts in 1..=2 * RestartPolicy::default().most_panics {
            assert!(address.send(Add(0)).await.is_err());
            assert_eq!(address.send(Add(1)).await.unwrap().1 as usize, restarts);
            sleep(RestartPolicy::default().window / 5).await;
        }
        assert!(supervisor.failed().now_or_never().is_none());
    });
}

#[test]
fn a_panic_of_a_guarded_task_is_a_failure() {
    in_virtual_time(async {
        let supervisor = supervisor();
        supervisor.clone().guard("nothing", async {}).await;
        assert!(supervisor.failed().now_or_never().is_none());
        supervisor.clone().guard("the test", async { panic_on_request() }).await;
        assert!(supervisor.failed().await.to_string().starts_with("the task for the test panicked"));
    });
}

#[test]
fn the_delay_doubles_up_to_the_longest() {
    let policy = RestartPolicy::default();
    let delays: Vec<_> = (1..policy.most_panics).map(|panics| policy.delay(panics).unwrap()).collect();
    assert!(delays.windows(2).all(|pair| pair[1] == (pair[0] * 2).min(policy.longest_delay)));
    assert_eq!(policy.delay(policy.most_panics), None);
}
