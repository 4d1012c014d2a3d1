use super::*;

const FIXED: FixedKeys = FixedKeys { section: "balancer", fixed: "port", switches: &["access_log"] };

fn values(pairs: &[(&str, &str)]) -> SettingValues {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn changed_keys_are_divided_into_those_that_apply_and_those_that_need_a_restart() {
    let before = values(&[
        ("balancer.policy", "adaptive"),
        ("balancer.port", "1"),
        ("balancer.access_log", "a"),
        ("balancer.fall", "3"),
        ("fleet.prefix", "a"),
        ("server.pages", ""),
    ]);
    let mut after = values(&[
        ("balancer.policy", "hash"),
        ("balancer.port", "2"),
        ("balancer.access_log", "b"),
        ("balancer.fall", "3"),
        ("fleet.prefix", "b"),
        ("server.pages", "x"),
    ]);
    let changes = compare(&FIXED, &before, &after);
    assert_eq!(changes.changed, ["balancer.access_log", "balancer.policy"]);
    assert_eq!(changes.needs_restart, ["balancer.port", "fleet.prefix"]);
    after.insert("balancer.access_log".to_owned(), String::new());
    assert_eq!(compare(&FIXED, &before, &after).needs_restart[..2], ["balancer.access_log", "balancer.port"]);
    assert_eq!(compare(&FIXED, &before, &before), KeyChanges::default());
}
