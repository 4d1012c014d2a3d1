use super::*;

fn with_probe_path(path: &str) -> Result<BalancerSettings, SettingsError> {
    let raw: RawBalancerSettings =
        settings::section("balancer", vec![("balancer.probe_path", path.to_owned())]).unwrap();
    raw.try_into()
}

#[test]
fn a_probe_path_must_fit_into_a_url_without_a_change() {
    for path in ["/", "/files/plshelp.txt", "/a?b=c&d", "//a", "/%20%FF", "/~a;b=(1)@,!*'$+"] {
        assert_eq!(with_probe_path(path).unwrap().probes.path, path);
    }
    let endless = "/a".repeat(40_000);
    for path in ["", "a", "/a b", "/a<b", "/a>b", "/a#b", "/#", "/\u{e4}", &endless] {
        let message = with_probe_path(path).unwrap_err().to_string();
        assert!(message.starts_with("balancer.probe_path = "), "{message}");
    }
}
