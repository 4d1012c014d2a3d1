use super::*;

fn variables(pid: &str, count: &str, names: Option<&str>) -> Result<Option<Vec<String>>, PassedError> {
    let text = |text: &str| Some(text.to_owned());
    ListenVariables { pid: text(pid), count: text(count), names: names.map(str::to_owned), predecessor: None }
        .names_of_sockets(7, 5)
}

#[test]
fn a_process_without_listen_pid_takes_the_sockets_of_its_parent_only() {
    let of = |predecessor: &str| {
        let text = |text: &str| Some(text.to_owned());
        ListenVariables { count: text("1"), predecessor: text(predecessor), ..ListenVariables::default() }
            .names_of_sockets(7, 5)
    };
    assert_eq!(of("5").unwrap().unwrap(), ["unknown"]);
    assert_eq!(of("6").unwrap(), None);
}

#[test]
fn only_the_process_in_listen_pid_takes_the_sockets() {
    assert_eq!(variables("7", "2", Some("clients:admin")).unwrap().unwrap(), ["clients", "admin"]);
    assert_eq!(variables("7", "2", None).unwrap().unwrap(), ["unknown", "unknown"]);
    assert_eq!(variables("8", "2", None).unwrap(), None);
    assert_eq!(ListenVariables::default().names_of_sockets(7, 5).unwrap(), None);
}

#[test]
fn an_error_names_the_invalid_variable_and_its_value() {
    for (pid, count, names, named) in [
        ("me", "1", None, "LISTEN_PID=me"),
        ("7", "many", None, "LISTEN_FDS=many"),
        ("7", "-1", None, "LISTEN_FDS=-1"),
        ("7", "65", None, "LISTEN_FDS=65"),
        ("7", "2", Some("clients"), "LISTEN_FDNAMES=clients"),
    ] {
        let message = variables(pid, count, names).unwrap_err().to_string();
        assert!(message.contains(named), "{message}");
    }
}

#[test]
fn a_notification_is_sent_to_a_path_and_to_an_abstract_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    send(path.as_os_str(), b"READY=1\n").unwrap();
    let mut space = [0; 16];
    let length = manager.recv(&mut space).unwrap();
    assert_eq!(&space[..length], b"READY=1\n");
    assert!(send(folder.path().join("missing").as_os_str(), b"READY=1\n").is_err());

    {
        let name = format!("@fingerpost-test-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&socket_address(OsStr::new(&name)).unwrap()).unwrap();
        send(OsStr::new(&name), b"STOPPING=1\n").unwrap();
        assert_eq!(manager.recv(&mut space).unwrap(), 11);
    }
}
