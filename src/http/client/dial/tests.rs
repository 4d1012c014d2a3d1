use super::*;

fn list(text: &[&str]) -> Vec<IpAddr> {
    text.iter().map(|address| address.parse().unwrap()).collect()
}

#[test]
fn the_families_alternate() {
    let found = list(&["::1", "::2", "1.0.0.1", "1.0.0.2", "1.0.0.3"]);
    let turns = list(&["::1", "1.0.0.1", "::2", "1.0.0.2", "1.0.0.3"]);
    assert_eq!(in_order(&found, Family::Any), turns);
    assert_eq!(in_order(&found, Family::V4).len(), 3);
    assert_eq!(in_order(&found, Family::V6).len(), 2);
}

#[tokio::test]
async fn an_unreachable_address_does_not_prevent_a_connection() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let living = listener.local_addr().unwrap();
    let closed = {
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        gone.local_addr().unwrap()
    };
    let stream = race([closed, living].into_iter()).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), living);
}

#[test]
fn a_lack_of_descriptors_is_reported_rather_than_a_refusal() {
    let error = |errno: rustix::io::Errno| TransportError::shortage(errno.into());
    let address = "[::1]:1".parse().unwrap();
    let refused = || TransportError::Connect { address, source: io::ErrorKind::ConnectionRefused.into() };
    assert!(weight(&error(rustix::io::Errno::MFILE).unwrap()) > weight(&refused()));
    assert!(weight(&error(rustix::io::Errno::ADDRNOTAVAIL).unwrap()) < weight(&refused()));
    error(rustix::io::Errno::CONNREFUSED).unwrap_err();
}
