use super::*;

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// A resolver that counts its lookups and answers lookup `number` with `answer(number)`.
fn counting(
    answer: impl Fn(usize) -> Result<Vec<IpAddr>, ResolveError> + Send + Sync + 'static,
) -> (Resolver, Arc<AtomicUsize>) {
    let lookups = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&lookups);
    (Resolver::new(move |_| answer(counter.fetch_add(1, Ordering::SeqCst))), lookups)
}

/// Makes all answers older by `age`.
fn age(resolver: &Resolver, age: Duration) {
    for entry in lock(&resolver.shared.names).values_mut() {
        let good = entry.good.as_mut().map(|(_, at)| at);
        let failed = entry.failed.as_mut().map(|(_, at)| at);
        for at in good.into_iter().chain(failed) {
            *at = at.checked_sub(age).unwrap();
        }
    }
}

#[tokio::test]
async fn one_lookup_serves_all_waiting_callers_and_the_next_minute() {
    let (resolver, lookups) = counting(|_| {
        thread::sleep(Duration::from_millis(50));
        Ok(vec![HOME, HOME])
    });
    let asked = (0..20).map(|_| resolver.resolve("a.example"));
    for outcome in futures_util::future::join_all(asked).await {
        assert_eq!(outcome.unwrap()[..], [HOME]);
    }
    resolver.resolve("a.example").await.unwrap();
    assert_eq!(lookups.load(Ordering::SeqCst), 1);
    age(&resolver, FRESH_FOR);
    resolver.resolve("a.example").await.unwrap();
    assert_eq!(lookups.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn after_a_failed_lookup_the_last_addresses_are_used() {
    let (resolver, _) =
        counting(
            |number| if number == 0 { Ok(vec![HOME]) } else { Err(ResolveError::Failed(String::new())) },
        );
    resolver.resolve("a.example").await.unwrap();
    age(&resolver, FRESH_FOR);
    assert_eq!(resolver.resolve("a.example").await.unwrap()[..], [HOME]);
    let unknown = resolver.resolve("b.example").await.unwrap_err();
    assert_eq!(unknown, ResolveError::Failed(String::new()));
}

#[tokio::test]
async fn while_the_resolver_hangs_the_last_addresses_are_used() {
    let (resolver, lookups) = counting(|number| {
        if number > 0 {
            thread::sleep(Duration::from_secs(2));
        }
        Ok(vec![HOME])
    });
    resolver.resolve("a.example").await.unwrap();
    age(&resolver, FRESH_FOR);
    let began = Instant::now();
    for _ in 0..3 {
        assert_eq!(resolver.resolve("a.example").await.unwrap()[..], [HOME]);
    }
    assert!(began.elapsed() < Duration::from_secs(1), "only the first caller waits for the refresh");
    assert_eq!(lookups.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_name_that_was_deleted_is_not_resolved_any_more() {
    let gone = || ResolveError::NoSuchName(String::new());
    let (resolver, _) = counting(move |number| if number == 0 { Ok(vec![HOME]) } else { Err(gone()) });
    resolver.resolve("a.example").await.unwrap();
    age(&resolver, FRESH_FOR);
    assert_eq!(resolver.resolve("a.example").await, Err(gone()));
    age(&resolver, FAILED_FOR);
    assert_eq!(resolver.resolve("a.example").await, Err(gone()));
}

#[tokio::test]
async fn a_lookup_that_panics_is_a_failure_and_is_repeated() {
    let (resolver, _) = counting(|number| {
        assert!(number > 0, "a fault in a module of the system's resolver");
        Ok(vec![HOME])
    });
    assert!(matches!(resolver.resolve("a.example").await, Err(ResolveError::Failed(_))));
    assert_eq!(resolver.resolve("a.example").await.unwrap()[..], [HOME]);
}

#[tokio::test]
async fn a_lookup_beyond_the_limit_is_counted_and_an_error_of_this_machine() {
    let (resolver, lookups) = counting(|_| Ok(vec![HOME]));
    resolver.shared.running.store(MAX_LOOKUPS - LOOKUPS_FOR_KNOWN, Ordering::Relaxed);
    for _ in 0..2 {
        let refused = resolver.resolve("a.example").await;
        assert!(matches!(refused, Err(ResolveError::Shortage { .. })), "{refused:?}");
    }
    assert_eq!((resolver.refused().get(), lookups.load(Ordering::SeqCst)), (2, 0));
}

#[tokio::test]
async fn localhost_needs_no_resolver() {
    let (resolver, lookups) = counting(|_| Err(ResolveError::TimedOut));
    for name in ["localhost", "LOCALHOST.", "a.localhost"] {
        assert!(resolver.resolve(name).await.unwrap().iter().all(IpAddr::is_loopback), "{name}");
    }
    resolver.resolve("localhost.example").await.unwrap_err();
    assert_eq!(lookups.load(Ordering::SeqCst), 1);
}

#[test]
fn names_are_limited() {
    let mut names: HashMap<String, NameEntry> = HashMap::new();
    let now = Instant::now();
    for number in 0_u32..100 {
        let used = Some(now + Duration::from_secs(number.into()));
        names.insert(number.to_string(), NameEntry { used, ..NameEntry::default() });
    }
    forget_oldest(&mut names);
    assert_eq!(names.len(), 49);
    assert!(names.contains_key("99") && !names.contains_key("0"));
}
