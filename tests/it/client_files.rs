//! `fingerpost get` in scripts and for many files: lists, names, reports, limits, proxies.

use std::io::Write;
use std::time::{Duration, Instant};

use super::support::downloads::Downloads;
use super::support::misbehaving::{Script, content};
use super::support::wait_until;

#[test]
fn several_files_at_once_each_with_its_report() {
    let file = content(5000);
    let server = Script::of(&file).start();
    let downloads = Downloads::new();
    let list: Vec<String> = (0..50).map(|index| server.url(&format!("/file{index}"))).collect();
    std::fs::write(downloads.path().join("list"), format!("# fifty files\n\n{}\n", list.join("\n"))).unwrap();
    let outcome = downloads.get(&["-i", "list", "-j", "8", "--json", "--output-dir", "."]);
    let reports: Vec<serde_json::Value> =
        outcome.ended_with(0).stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(reports.len(), 50);
    for report in &reports {
        assert_eq!((report["size"].as_u64(), report["exit"].as_u64()), (Some(5000), Some(0)), "{report}");
        assert_eq!(report["sha256"].as_str().unwrap().len(), 64);
        assert_eq!(report["servers"][0]["bytes"].as_u64(), Some(5000));
        assert!(report["servers"][0]["ttfb"].as_f64().unwrap() < 5.0);
    }
    for index in 0..50 {
        assert!(downloads.read(&format!("file{index}")) == file);
    }
}

#[test]
fn several_files_end_with_a_summary_and_ctrl_c_prints_the_active_ones() {
    let server = Script::of(&content(5000)).start();
    let downloads = Downloads::new();
    let outcome = downloads.get(&[&server.url("/a"), &server.url("/b"), "nonsense"]);
    let last = outcome.ended_with(3).stderr().lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("2 files complete, 9.8 KiB in ") && last.ends_with(", 1 failed"), "{last}");
    for more in [&[][..], &["-s"]] {
        let slow = Script::of(&content(400_000)).bytes_per_second(100_000).start();
        let addresses = [slow.url("/c"), slow.url("/d")];
        let downloads = Downloads::new();
        let mut running = downloads.start(&[&[addresses[0].as_str(), &addresses[1]], more].concat());
        wait_until("both to begin", || {
            slow.exchanges().iter().filter(|exchange| exchange.sent > 0).count() == 2
        });
        running.signal(rustix::process::Signal::INT);
        assert_eq!(running.wait().code(), Some(130));
        let words = "saving 2 unfinished download(s), 30s at most; a second Ctrl-C ends at once";
        assert_eq!(running.stderr().contains(words), more.is_empty(), "{}", running.stderr());
    }
}

#[test]
fn one_failure_does_not_stop_the_others_and_names_the_exit_code() {
    let good = Script::of(b"I am a file.").start();
    let missing = Script::of(b"").answers(404, vec![]).start();
    let downloads = Downloads::new();
    let addresses = [&good.url("/a"), &missing.url("/b"), "nonsense", &good.url("/c"), &good.url("/d/c")];
    let outcome = downloads.get(&[&addresses[..], &["--json"]].concat());
    let stderr = outcome.ended_with(22).stderr();
    let mut codes: Vec<u64> = outcome
        .stdout()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["exit"].as_u64().unwrap())
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 0, 2, 3, 22], "one report for each: {}", outcome.stdout());
    assert!(stderr.contains(&format!("Error: {}: ", missing.url("/b"))), "{stderr}");
    assert!(stderr.contains("Error: nonsense: invalid URL \"nonsense\""), "{stderr}");
    assert_eq!(downloads.names(), ["a", "c"]);
}

#[test]
fn two_files_of_one_name_do_not_overwrite_each_other() {
    let one = Script::of(b"one").start();
    let two = Script::of(b"two").start();
    let downloads = Downloads::new();
    downloads.get(&[&one.url("/f"), &two.url("/f")]).ended_with(2);
    assert_eq!(downloads.read("f"), b"one");
    // The same holds for the part file and the journal of one of them.
    let file = content(400_000);
    let slow = Script::of(&file).bytes_per_second(1_000_000).start();
    for name in ["/g.part", "/g.part.journal", "/g.part.new"] {
        let downloads = Downloads::new();
        downloads.get(&[&slow.url("/g"), &two.url(name)]).ended_with(2);
        assert!(downloads.read("g") == file);
        assert_eq!(downloads.names(), ["g"]);
    }
}

#[test]
fn flags_that_contradict_each_other_end_with_2() {
    let downloads = Downloads::new();
    for flags in [
        &["http://h/a", "http://h/b", "-o", "f"][..],
        &["http://h/a", "-o", "-", "--json"],
        &["http://h/a", "-H", "no colon"],
        &["http://h/a", "-H", "Range: bytes=0-1"],
        &["http://h/a", "-C", "5"],
        &["http://h/a", "--limit-rate", "0"],
        &["-i", "missing-list"],
        &[],
    ] {
        downloads.get(flags).ended_with(2);
    }
}

#[test]
fn the_rate_is_limited() {
    let server = Script::of(&content(300_000)).start();
    let downloads = Downloads::new();
    let began = Instant::now();
    downloads.get(&[&server.url("/f"), "--limit-rate", "400KB"]).ended_with(0);
    assert!(began.elapsed() > Duration::from_millis(600), "{:?}", began.elapsed());
}

#[test]
fn the_time_is_limited() {
    let server = Script::of(&content(300_000)).stalls_at(1000).start();
    let downloads = Downloads::new();
    let began = Instant::now();
    downloads.get(&[&server.url("/f"), "--max-time", "0.3"]).ended_with(28);
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(!downloads.names().contains(&"f".to_owned()));
}

#[test]
fn given_headers_are_sent_and_credentials_only_to_the_first_host() {
    let server = Script::of(b"I am a file.").start();
    // Another name for the same machine counts as another host.
    let elsewhere = server.url("/f").replace("127.0.0.1", "localhost");
    let balancer = Script::redirect(&elsewhere, &[]).start();
    let downloads = Downloads::new();
    downloads
        .get(&[&balancer.url("/f"), "-4", "-H", "X-Own: 1", "-H", "Authorization: Bearer secret"])
        .ended_with(0);
    assert_eq!(balancer.exchanges()[0].header("Authorization"), Some("Bearer secret"));
    assert_eq!(server.exchanges()[0].header("X-Own"), Some("1"));
    assert_eq!(server.exchanges()[0].header("Authorization"), None);
    assert_eq!(server.exchanges()[0].header("Accept-Encoding"), Some("identity"));
}

#[test]
fn a_proxy_from_the_environment_is_used() {
    let file = content(2000);
    let proxy = Script::of(&file).start();
    let downloads = Downloads::new();
    let authority = proxy.address().to_string();
    let mut command = downloads.command(&["http://files.invalid/f"]);
    let status = command.env("http_proxy", format!("http://user:pass@{authority}")).output().unwrap().status;
    assert_eq!(status.code(), Some(0));
    assert!(downloads.read("f") == file);
    let request = &proxy.exchanges()[0];
    assert!(request.request.starts_with("GET http://files.invalid/f HTTP/1.1\r\n"), "{request:?}");
    assert_eq!(request.header("Proxy-Authorization"), Some("Basic dXNlcjpwYXNz"));
    let mut command = downloads.command(&["http://files.invalid/g"]);
    let direct = command.env("http_proxy", format!("http://{authority}")).env("NO_PROXY", "invalid");
    assert_eq!(direct.output().unwrap().status.code(), Some(6));
    // The exit code shows which of the two names cannot be resolved. No output shows the password.
    for (proxy, words) in [
        ("http://user:SECRET@proxy.invalid:3128", "cannot resolve the proxy proxy.invalid"),
        ("https://user:SECRET@proxy.invalid:3128", "cannot use the proxy \"https://proxy.invalid:3128\""),
    ] {
        let mut command = downloads.command(&["http://files.invalid/h"]);
        let output = command.env("http_proxy", proxy).output().unwrap();
        let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(5), "{told}");
        assert!(told.contains(words) && !told.contains("SECRET"), "{told}");
    }
}

#[test]
fn choices_are_explained() {
    let bad = Script::of(&content(1000)).closes_at(10).start();
    let good = Script::of(&content(1000)).start();
    let link = format!("Link: <{}>; rel=duplicate", good.url("/f"));
    let balancer = Script::redirect(&bad.url("/f"), &[&link]).start();
    let outcome = Downloads::new().get(&[&balancer.url("/f"), "--explain"]);
    let stderr = outcome.ended_with(0).stderr();
    for words in
        ["server 0 offered", "server 1 offered", "server 0 chosen", "server 0 dropped", "server 1 chosen"]
    {
        assert!(stderr.contains(words), "{words:?} is missing:\n{stderr}");
    }
}

#[test]
fn failures_of_hosts_have_their_own_exit_codes() {
    let downloads = Downloads::new();
    downloads.get(&["http://files.invalid/f"]).ended_with(6);
    let dead = Script::of(b"").start();
    let url = dead.url("/f");
    dead.kill();
    super::support::wait_until("the port to be free", || {
        std::net::TcpStream::connect(dead.address()).is_err()
    });
    downloads.get(&[&url]).ended_with(7);
    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/f", plain.local_addr().unwrap());
    let answering =
        std::thread::spawn(move || plain.accept().unwrap().0.write_all(b"HTTP/1.1 400 Bad\r\n\r\n"));
    downloads.get(&[&url]).ended_with(35);
    answering.join().unwrap().unwrap();
}

#[test]
fn a_name_chosen_by_a_server_replaces_no_file() {
    let file = content(5000);
    let date = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT";
    let named = Script::of(&file).header("Content-Disposition: attachment; filename=\"mine\"");
    let server = named.clone().header(date).start();
    let downloads = Downloads::new();
    let mine = downloads.path().join("mine");
    std::fs::write(&mine, "precious").unwrap();
    downloads.get(&[&server.url("/f"), "-J", "--no-clobber"]).ended_with(0);
    assert!(downloads.get(&[&server.url("/f"), "-J"]).ended_with(23).stderr().contains("exists already"));
    assert_eq!((downloads.names(), downloads.read("mine")), (vec!["mine".to_owned()], b"precious".to_vec()));
    // An identical existing file counts as complete, as under a name from the address.
    std::fs::remove_file(&mine).unwrap();
    for _ in 0..2 {
        downloads.get(&[&server.url("/f"), "-J"]).ended_with(0);
        assert!(downloads.read("mine") == file);
    }
    // A name that equals the name of the address may be replaced.
    server.becomes(named.clone());
    std::fs::write(&mine, "of another day").unwrap();
    downloads.get(&[&server.url("/mine"), "-J"]).ended_with(0);
    assert!(downloads.read("mine") == file);

    let downloads = Downloads::new();
    let other = Script::of(b"other").header("Content-Disposition: attachment; filename=\"mine\"").start();
    let outcome = downloads.get(&[&server.url("/a"), &other.url("/b"), "-J", "-j", "1"]);
    assert!(outcome.ended_with(2).stderr().contains("two downloads would write to mine"));
    assert!(downloads.read("mine") == file);
    assert_eq!(downloads.names(), ["mine"]);
}

#[test]
fn addresses_of_one_name_are_two_files_if_the_server_names_them() {
    let named = |name: &str| {
        let line = format!("Content-Disposition: attachment; filename=\"{name}\"");
        Script::of(&content(5000)).header(line).start()
    };
    let (one, two, unnamed) = (named("one"), named("two"), Script::of(b"unnamed").start());
    let urls = [&one, &two, &unnamed].map(|server| server.url("/download"));
    for jobs in ["4", "1"] {
        let downloads = Downloads::new();
        let [one, two, unnamed] = urls.each_ref().map(String::as_str);
        downloads.get(&[one, two, unnamed, "-J", "-j", jobs]).ended_with(0);
        assert_eq!(downloads.names(), ["download", "one", "two"]);
        assert_eq!(downloads.read("download"), b"unnamed");
    }
    let downloads = Downloads::new();
    // The first file gets its name while the second is still being downloaded.
    let slow = Script::of(&content(100_000)).bytes_per_second(200_000).start();
    let slow_url = slow.url("/slow");
    let arguments = [&urls[2], &slow_url, &urls[0], "-J", "-j", "1", "--no-clobber"];
    downloads.get(&arguments).ended_with(0);
    assert_eq!(downloads.names(), ["download", "one", "slow"]);
    // A name from the address belongs to one of the downloads only.
    let downloads = Downloads::new();
    let same = Script::of(b"unnamed too").start();
    let address = same.url("/download");
    let arguments = [&urls[2], &address, &urls[0]].map(String::as_str);
    let outcome = downloads.get(&[&arguments[..], &["-J"]].concat());
    assert!(outcome.ended_with(2).stderr().contains("two downloads would write to download"));
    assert_eq!(downloads.names(), ["download", "one"]);
    downloads.get(&[&urls[0], &urls[1]]).ended_with(2);
}

#[test]
fn a_part_file_is_resumed_only_by_the_download_it_belongs_to() {
    let (file, other) = (content(500_000), content(1000));
    let server = Script::of(&file).closes_at(200_000).start();
    let second = Script::of(&other).header("Content-Disposition: attachment; filename=\"second\"").start();
    let downloads = Downloads::new();
    downloads.get(&[&server.url("/f"), "-J", "--retry", "0"]).ended_with(18);
    assert_eq!(downloads.names(), ["f.part", "f.part.journal"]);
    server.becomes(Script::of(&file));
    downloads.get_quickly(&[&server.url("/f"), &second.url("/f"), "-J"]).ended_with(0);
    assert_eq!(downloads.names(), ["f", "second"]);
    assert!(downloads.read("f") == file && downloads.read("second") == other);
    assert_eq!(server.exchanges()[1].header("Range"), Some("bytes=200000-"));
}

#[test]
fn max_time_and_ctrl_c_end_the_check_of_existing_files() {
    let server = Script::of(b"").hangs().start();
    let downloads = Downloads::new();
    let list: Vec<String> = (0..20).map(|index| format!("f{index}")).collect();
    for name in &list {
        std::fs::write(downloads.path().join(name), "of another day").unwrap();
    }
    downloads.get(&[&server.url("/f0"), "--max-time", "0.2"]).ended_with(28);
    assert_eq!(server.exchanges().len(), 1);
    let urls: Vec<String> = list.iter().map(|name| server.url(&format!("/{name}"))).collect();
    std::fs::write(downloads.path().join("list"), urls.join("\n")).unwrap();
    let mut running = downloads.start(&["-i", "list", "-j", "2"]);
    wait_until("two questions", || server.exchanges().len() == 3);
    running.signal(rustix::process::Signal::INT);
    assert_eq!(running.wait().code(), Some(130));
    assert_eq!(server.exchanges().len(), 3, "asked on after Ctrl-C");
}
