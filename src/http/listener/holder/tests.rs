use std::net::TcpListener;

use super::*;

#[test]
fn the_holder_of_a_port_is_found_by_every_conflicting_address() {
    for (host, same) in [
        ("127.0.0.1", ["127.0.0.1", "0.0.0.0", "::"].as_slice()),
        ("0.0.0.0", &["127.0.0.1", "::"]),
        ("::1", &["::1", "::"]),
    ] {
        let Ok(listener) = TcpListener::bind((host, 0)) else { continue };
        let port = listener.local_addr().unwrap().port();
        for wanted in same {
            let found = find(SocketAddr::new(wanted.parse().unwrap(), port)).unwrap();
            assert_eq!(found.pid, std::process::id(), "{host} {wanted}");
            assert!(!found.name.is_empty());
        }
        drop(listener);
        assert_eq!(find(SocketAddr::new(same[0].parse().unwrap(), port)), None);
    }
}

#[test]
fn a_malformed_table_names_no_socket() {
    let address = SocketAddr::from(([127, 0, 0, 1], 80));
    let good = "head\n 0: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 1\n";
    assert_eq!(listening_inodes(good, address), ["4711"]);
    for end in 0..good.len() - 8 {
        assert!(listening_inodes(&good[..end], address).iter().all(|inode| "4711".starts_with(inode)));
    }
    for bad in
        ["", "head\n: : : :", "head\n 0: zz:0050 0:0 0A 0:0 0:0 0 0 0 1", "head\n 0: 01:50 0:0 0A a b c d e"]
    {
        assert!(listening_inodes(bad, address).is_empty());
    }
}
