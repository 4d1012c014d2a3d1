//! The help texts, compared with files, so that a review shows every change.
//!
//! After an intended change, `FINGERPOST_TEST_WRITE_HELP=1 cargo test --test it help` updates the files.

use std::path::Path;

use super::support::program::fingerpost;

#[test]
fn every_help_text_is_equal_to_its_file() {
    let mut differing = Vec::new();
    let top = help(&["--help"]);
    let mut pages = vec![("fingerpost".to_owned(), top.clone())];
    for command in commands(&top) {
        pages.push((format!("fingerpost-{command}"), help(&[&command, "--help"])));
        pages.push((format!("fingerpost-{command}-all"), help(&[&command, "--help-all"])));
    }
    for (name, text) in pages {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/help/{name}.txt"));
        if std::env::var_os("FINGERPOST_TEST_WRITE_HELP").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let pinned = std::fs::read_to_string(&path).unwrap_or_default();
        if pinned != text {
            differing.push(format!("{}:\n{text}", path.display()));
        }
    }
    assert!(
        differing.is_empty(),
        "changed; if this is intended, write the files again with FINGERPOST_TEST_WRITE_HELP=1\n{}",
        differing.join("\n")
    );
}

#[test]
fn a_help_text_is_short_and_has_examples_and_exit_codes() {
    let top = help(&["--help"]);
    for command in commands(&top) {
        let text = help(&[&command, "--help"]);
        assert!(text.lines().count() < 60, "{command}: {}", text.lines().count());
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        assert!(text.contains("\nExamples:\n") && text.contains("\nExit codes"), "{text}");
        assert_eq!(text, help(&[&command, "-h"]));
        assert_eq!(text, help(&["help", &command]));
        assert!(help(&[&command, "--help-all"]).len() >= text.len());
    }
    assert_eq!(top, help(&["help"]));
    for hidden in ["--head-after", "--checkpoint-interval", "--log-level"] {
        assert!(!help(&["get", "--help"]).contains(hidden));
        assert!(help(&["get", "--help-all"]).contains(hidden));
    }
}

#[test]
fn completions_contain_the_values_of_flags() {
    for shell in ["bash", "fish", "zsh"] {
        let text = help(&["manual", shell]);
        for value in ["adaptive", "ranked", "two-choices", "round-robin", "random", "hash", "308", "debug"] {
            assert!(text.contains(value), "{value} is not in the completions of {shell}");
        }
    }
}

/// The command line has its own list of policies, because `cli` does not depend on `balancer`.
#[test]
fn the_values_of_policy_are_the_policies_of_the_balancer() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("balancer_server_list.txt"), "127.0.0.1:1\n").unwrap();
    let mut check = fingerpost();
    check.args(["check", "balancer"]).env("FINGERPOST__BALANCER__POLICY", "unknown");
    let checked = String::from_utf8(check.current_dir(folder.path()).output().unwrap().stdout).unwrap();
    let known = checked.split("policies are ").nth(1).unwrap().lines().next().unwrap().to_owned();
    let output = fingerpost().args(["balancer", "--policy", "unknown"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains(&format!("[possible values: {known}]")),
        "{known}"
    );
}

#[test]
fn flags_of_curl_without_an_effect_are_accepted() {
    let output =
        fingerpost().args(["get", "-q", "-fsSL", "-O", "--location", "--fail", "http://"]).output().unwrap();
    // The error concerns the URL, not the flags.
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(!help(&["get", "--help-all"]).contains("--location"));
}

#[test]
fn the_man_page_and_the_completions_name_every_command() {
    let commands = commands(&help(&["--help"]));
    assert!(commands.len() >= 5, "{commands:?}");
    for page in ["man", "bash", "fish", "zsh"] {
        let output = fingerpost().args(["manual", page]).output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        for command in &commands {
            assert!(text.contains(command), "{command} is not in the {page} page");
        }
    }
}

#[test]
fn each_command_has_its_own_man_page() {
    for command in commands(&help(&["--help"])) {
        let output = fingerpost().args(["manual", "man", &command]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(&format!("fingerpost\\-{command}")) && text.contains("log\\-level"), "{text}");
    }
    for (page, command, words) in [("man", "got", "unknown command got"), ("bash", "get", "all commands")] {
        let output = fingerpost().args(["manual", page, command]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{output:?}");
    }
}

#[test]
fn a_closed_pipe_is_not_an_error_and_a_full_disk_is_one() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("balancer_server_list.txt"), "127.0.0.1:1\n").unwrap();
    for arguments in [["manual", "zsh"].as_slice(), &["manual", "man"], &["check"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = fingerpost().args(arguments).current_dir(folder.path()).stdout(writer).output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{arguments:?}");
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = fingerpost().args(arguments).current_dir(folder.path()).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{output:?}");
    }
}

fn help(arguments: &[&str]) -> String {
    let output = fingerpost().args(arguments).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that the top help text lists.
fn commands(top: &str) -> Vec<String> {
    let listed = top.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}
