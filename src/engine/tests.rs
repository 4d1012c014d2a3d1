use super::*;

#[test]
fn the_pause_doubles_up_to_a_limit_and_jitter_halves_it_at_most() {
    let mut backoff = Backoff::default();
    let pauses: Vec<_> = (0..8).map(|_| backoff.next(1.0).as_millis()).collect();
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000, 2000]);
    assert_eq!(backoff.next(0.0), Duration::from_secs(1));
    backoff.reset();
    assert_eq!(backoff.next(0.0), Duration::from_millis(50));
}

#[test]
fn an_address_is_a_url_without_a_password() {
    let shown = |text: &str| text.parse::<EngineAddress>().map(|address| address.to_string());
    assert_eq!(shown("redis://host").unwrap(), "redis://host:6379/0");
    assert_eq!(shown("rediss://us%65r@[::1]:7000/3").unwrap(), "rediss://[::1]:7000/3");
    assert_eq!("redis://us%65r@h".parse::<EngineAddress>().unwrap().user.as_deref(), Some("user"));
    assert_eq!(
        shown("rediss+sentinel://user@a,[::1]:7000/main/2").unwrap(),
        "rediss+sentinel://a:26379,[::1]:7000/main/2"
    );
    assert_eq!(shown("redis+sentinel://a/main").unwrap(), "redis+sentinel://a:26379/main/0");
    for text in ["redis://user:secret@host", "redis://:secret@host", "redis+sentinel://u:secret@a,b/main"] {
        let message = shown(text).unwrap_err().to_string();
        assert!(message.contains("fleet.password_file") && !message.contains("secret"), "{message}");
    }
    for text in [
        "redis://",
        "redis:host",
        "http://host",
        "redis://host/x",
        "redis://host/1/2",
        "redis://host?db=1",
        "redis://host:x",
        "redis://a,b",
        "redis+sentinel://a",
        "redis+sentinel://a,/main",
        "redis+sentinel://a/main/x",
    ] {
        shown(text).unwrap_err();
    }
}

#[test]
fn a_pattern_matches_only_keys_with_the_prefix() {
    assert_eq!(glob_of("{fleet}:1:server:"), "{fleet}:1:server:*");
    assert_eq!(glob_of("a*[b]?"), r"a\*\[b\]\?*");
}

#[tokio::test]
async fn an_answer_has_a_largest_size() {
    let (mut peer, stream) = tokio::io::duplex(64);
    let allowance = Arc::new(AtomicUsize::new(100));
    let mut bounded = Bounded { stream: Box::new(stream), allowance: Arc::clone(&allowance) };
    let writing =
        async { while tokio::io::AsyncWriteExt::write_all(&mut peer, &[b'x'; 10]).await.is_ok() {} };
    let reading = async {
        let mut buffer = [0; 10];
        let mut read = 0;
        loop {
            match tokio::io::AsyncReadExt::read(&mut bounded, &mut buffer).await {
                Ok(count) => read += count,
                Err(error) => break (read, error.to_string()),
            }
        }
    };
    let (read, error) =
        tokio::select! { () = writing => panic!("the peer ended"), result = reading => result };
    assert!(read <= 100 && error.contains("more than"), "{read} {error}");
}
