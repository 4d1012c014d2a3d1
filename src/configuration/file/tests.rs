use super::*;
use crate::settings;
use crate::settings::keys::ValueKind;

fn problems(text: &str) -> Vec<String> {
    check(text).problems.iter().map(|problem| format!("{}: {}", problem.line, problem.reason)).collect()
}

#[test]
fn the_defaults_have_no_problem_and_every_key_is_usable() {
    let found = check(settings::DEFAULTS);
    assert_eq!(problems(settings::DEFAULTS), Vec::<String>::new());
    assert_eq!(found.usable.lines().count(), known_keys().len());
}

#[test]
fn every_problem_is_found_with_its_line() {
    let found = problems(
        "port = 1\n[balancer]\nprot = 1\nport = \"x\"\nfall = 7\n\n[server]\nport = 70000\n[sever]\nport = 1\n",
    );
    let [stray, unknown, text, large, section] = found.as_slice() else { panic!("{found:?}") };
    assert!(stray.starts_with("1: port: every key belongs to a section"), "{stray}");
    assert!(unknown.starts_with("3: balancer.prot: unknown key"), "{unknown}");
    assert!(text.starts_with("4: ") && text.contains("balancer.port"), "{text}");
    assert!(large.starts_with("8: ") && large.contains("server.port"), "{large}");
    assert!(section.starts_with("9: [sever]: unknown section"), "{section}");
}

#[test]
fn an_invalid_value_is_reported_with_its_line() {
    let found = problems("[balancer]\nfall = 0\nstatus = 300\nprobe_interval = \"soon\"\n");
    let [fall, status, interval] = found.as_slice() else { panic!("{found:?}") };
    assert!(fall.starts_with("2: balancer.fall = 0: it must be at least 1"), "{fall}");
    assert!(status.starts_with("3: balancer.status = 300: "), "{status}");
    assert!(interval.starts_with("4: balancer.probe_interval = \"soon\": it must be a time"), "{interval}");
}

#[test]
fn the_error_for_a_time_without_a_unit_contains_the_correct_text() {
    assert_eq!(
        problems("[balancer]\nprobe_interval = 2\nslow_start = '7'\nprobe_timeout = 0.5\nfall = \"2\"\n"),
        [
            "2: balancer.probe_interval = 2: a time needs a unit; write \"2s\"",
            "3: balancer.slow_start = \"7\": a time needs a unit; write \"7s\"",
            "4: balancer.probe_timeout = 0.5: a time needs a unit; write \"500ms\"",
            "5: balancer.fall = \"2\": it must be a whole number, such as 1",
        ]
    );
    for key in known_keys() {
        let (text, wanted) = match key.kind {
            ValueKind::Time => ("7", "write \"7s\""),
            ValueKind::Size => ("\"many\"", "or \"500kB\""),
            _ => continue,
        };
        let found = problems(&format!("[{}]\n\n{} = {text}", key.section, key.key));
        let start = format!("3: {} = {text}: ", key.name());
        assert!(found[0].starts_with(&start) && found[0].ends_with(wanted), "{found:?}");
    }
    let count = |kind| known_keys().iter().filter(|key| key.kind == kind).count();
    assert!(count(ValueKind::Time) >= 9 && count(ValueKind::Size) >= 4);
}

#[test]
fn a_value_of_another_kind_is_a_problem_even_if_it_could_be_converted() {
    let found = problems(
        "[balancer]\nport = true\nworkers = 1.5\nservers = 5.0\nsecond_chance = 1\nhost = ['::']\n\
             unix_socket_mode = 660\n",
    );
    assert_eq!(
        found,
        [
            "2: balancer.port = true: it must be a whole number, such as 1",
            "3: balancer.workers = 1.5: it must be a whole number, such as 1",
            "4: balancer.servers = 5.0: it must be text in quotes",
            "5: balancer.second_chance = 1: it must be true or false",
            "6: balancer.host = ['::']: it must be text in quotes",
        ]
    );
}

#[test]
fn invalid_toml_is_reported_with_its_line() {
    let found = problems("[balancer]\nport = 1\nfall == 2\n");
    assert!(found.iter().any(|problem| problem.starts_with("3: ")), "{found:?}");
}

#[test]
fn valid_keys_of_a_file_with_errors_stay_usable() {
    let found = check("[balancer]\nservers = 'own list.txt' # mine\nport = -1\n");
    assert_eq!(found.usable, "balancer.servers = 'own list.txt'\n");
}
