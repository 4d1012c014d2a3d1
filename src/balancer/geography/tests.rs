use super::place::Coordinates;
use super::*;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/geo").join(name)
}

fn geography(names: &[&str], table: &str) -> Geography {
    let databases = names.iter().map(|name| read_database(&data(name)).unwrap()).collect();
    Geography { databases, table: Arc::new(NetworkTable::parse(table.as_bytes()).unwrap()) }
}

/// The attributes of an address, and its coordinates.
fn place(geography: &Geography, address: &str) -> String {
    geography.of(address.parse().unwrap()).to_string()
}

#[test]
fn databases_know_countries_cities_and_systems() {
    let all = geography(&["GeoLite2-City-Test.mmdb", "GeoLite2-ASN-Test.mmdb"], "");
    assert_eq!(place(&all, "89.160.20.128"), " country=SE asn=29518 lat=58.4 lon=15.6");
    assert_eq!(place(&all, "1.128.0.0"), " asn=1221");
    assert_eq!(place(&all, "192.0.2.1"), "");
    let countries = geography(&["GeoLite2-Country-Test.mmdb"], "");
    assert_eq!(place(&countries, "89.160.20.128"), " country=SE");
    assert_eq!(place(&countries, "2001:218::1"), " country=JP");
}

#[test]
fn the_centre_of_a_country_is_no_place() {
    // The record has coordinates with an accuracy radius of 534 km, and no city.
    let cities = geography(&["GeoLite2-City-Test.mmdb"], "");
    assert_eq!(place(&cities, "67.43.156.1"), " country=BT");
}

#[test]
fn the_own_table_precedes_the_databases() {
    let own = "89.160.20.0/24 country=NO\n89.160.20.128/32 asn=7\n89.0.0.0/8 country=SE lat=1 lon=2\n";
    let all = geography(&["GeoLite2-City-Test.mmdb", "GeoLite2-ASN-Test.mmdb"], own);
    assert_eq!(place(&all, "89.160.20.128"), " country=SE asn=7 lat=58.4 lon=15.6");
    // The coordinates belong to another country.
    assert_eq!(place(&all, "89.160.20.127"), " country=NO asn=29518");
    assert_eq!(place(&all, "89.1.2.3"), " country=SE lat=1 lon=2");
}

#[test]
fn a_malformed_database_is_refused_with_its_name() {
    let mut count = 0;
    for file in fs::read_dir(data("bad")).unwrap() {
        let path = file.unwrap().path();
        let error = read_database(&path).unwrap_err();
        let text = crate::telemetry::chain(&error);
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        count += 1;
    }
    assert!(count >= 8, "{count}");
}

#[test]
fn a_part_of_a_database_never_panics() {
    let content = fs::read(data("GeoLite2-City-Test.mmdb")).unwrap();
    for length in (0..content.len()).step_by(997) {
        assert!(GeoDatabase::parse(content.get(..length).unwrap().to_vec()).is_err());
    }
    // A changed byte may leave the database readable.
    for place in (0..content.len()).step_by(211) {
        let mut changed = content.clone();
        changed.iter_mut().skip(place).take(1).for_each(|byte| *byte ^= 0xFF);
        if let Ok(database) = GeoDatabase::parse(changed) {
            let _ = database.find("89.160.20.128".parse().unwrap());
        }
    }
}

#[test]
fn a_wrong_line_of_a_table_is_named() {
    for (text, message) in [
        ("10.0.0.0/8\n\n10.0.0.0/33", "line 3: \"10.0.0.0/33\" is not a network"),
        ("# x\n10.0.0.0/8 land=DE", "line 2: \"land=DE\": the attributes are country=,"),
        ("10.0.0.0/8 country=UK", "line 1: a country is two letters"),
        ("10.0.0.0/8 lat=1", "line 1: lat= and lon= need each other"),
        ("10.0.0.0/8 lat=91 lon=0", "line 1: a latitude is"),
        ("10.0.0.0/8 asn=AS0", "line 1: an AS is"),
        ("10.1.0.0/8\n10.0.0.0/8", "line 2: the network is already in line 1"),
    ] {
        let error = NetworkTable::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

#[test]
fn every_country_has_the_continent_of_the_database() {
    let reader =
        maxminddb::Reader::from_source(fs::read(data("GeoLite2-Country-Test.mmdb")).unwrap()).unwrap();
    let mut count = 0;
    for network in reader.networks(maxminddb::WithinOptions::default()).unwrap() {
        let record: serde_json::Value = network.unwrap().decode().unwrap().unwrap();
        let country = record["country"]["iso_code"].as_str().and_then(|code| code.parse().ok());
        let Some(country) = country.filter(|_| record["continent"].is_object()) else { continue };
        let continent = place::CountryCode::continent(country).unwrap();
        assert_eq!(continent.to_string(), record["continent"]["code"].as_str().unwrap(), "{country}");
        count += 1;
    }
    assert!(count > 50, "{count}");
}

#[test]
fn coordinates_are_kept_to_a_tenth_of_a_degree() {
    assert_eq!(Coordinates::new(-12.34, 179.96).unwrap().to_string(), "lat=-12.3 lon=180");
}

#[test]
fn a_file_is_read_again_once_it_has_stopped_changing() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("networks");
    fs::write(&table, "10.0.0.0/8 country=DE\n").unwrap();
    let files = GeographySettings { table: Some(table.clone()), ..GeographySettings::default() };
    let mut followed = FollowedGeography::open(&files).unwrap();
    let country = |followed: &FollowedGeography| place(followed.geography(), "10.1.1.1");
    assert!(!followed.refresh().0);
    fs::write(&table, "10.0.0.0/8 country=FRA\n").unwrap();
    assert!(!followed.refresh().0);
    let (is_changed, errors) = followed.refresh();
    assert!(!is_changed);
    assert!(errors.first().unwrap().to_string().contains("networks"), "{errors:?}");
    assert_eq!(country(&followed), " country=DE");
    fs::write(&table, "10.0.0.0/8 country=FR # new\n").unwrap();
    assert!(!followed.refresh().0);
    assert!(followed.refresh().0);
    assert_eq!(country(&followed), " country=FR");
    fs::remove_file(&table).unwrap();
    assert!(!followed.refresh().0 && !followed.refresh().0);
    assert_eq!(country(&followed), " country=FR");
}
