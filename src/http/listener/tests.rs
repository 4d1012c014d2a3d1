use std::net::TcpStream;

use super::*;

#[test]
fn listening_on_all_addresses_includes_ipv4() {
    let listener = listen("::", 0).unwrap();
    let port = listener.local_addr().unwrap().port();
    TcpStream::connect(("127.0.0.1", port)).unwrap();
}

#[test]
fn the_error_for_a_busy_port_names_the_port() {
    let first = listen("127.0.0.1", 0).unwrap();
    let port = first.local_addr().unwrap().port();
    let message = listen("127.0.0.1", port).unwrap_err().to_string();
    assert!(message.starts_with(&format!("cannot listen on 127.0.0.1:{port}: ")), "{message}");
    assert!(message.contains("this process"), "{message}");
    let other = PortHolder { pid: 1, name: "init".to_owned() };
    assert_eq!(
        in_use(Some(&other)),
        "process 1 (init) uses this port; stop it, or choose another port, or 0 for a free one"
    );
    // TEST-NET-1 is not an address of any machine.
    let message = listen("192.0.2.1", 0).unwrap_err().to_string();
    assert_eq!(message, "cannot listen on 192.0.2.1:0: it is not an address of this machine");
}
