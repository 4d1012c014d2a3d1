//! The configuration and the mirrors of mirrorbits, and their conversion to a list of servers. Pure.

use std::collections::HashMap;
use std::fmt::Write as _;

use config::{Config, File, FileFormat, Value};
use url::Url;

use crate::balancer::backends::list;
use crate::balancer::policy::MOST_ALTERNATES;

/// The largest weight of a mirror without a score, so that a score of 1 % is visible.
const COMMON_WEIGHT: i64 = 100;

/// The keys without an equivalent, with advice.
const UNCONVERTED: [(&str, &str); 20] = [
    ("Templates", "the pages are built in"),
    ("LocalJSPath", "the pages need no other files"),
    ("LogDir", "--access-log FILE writes a line for each answer"),
    ("OutputMode", "a redirect is always the answer; ?mirrorlist=json gives the mirrors as JSON"),
    ("Gzip", "answers are not compressed"),
    ("SameDownloadInterval", "the parts of a download are counted once in 10 minutes"),
    ("RPCListenAddress", "--admin ADDR is the address for operators"),
    ("RPCPassword", "--admin-token FILE protects changes over the admin address"),
    (
        "RedisSentinels",
        "one balancer needs no Redis; give the address of the primary with --redis to read the mirrors",
    ),
    ("RedisSentinelMasterName", "one balancer needs no Redis"),
    (
        "TraceFileLocation",
        "proof=PATH in a line names a file that changes with each release, such as SHA256SUMS",
    ),
    ("RepositoryScanInterval", "changes of the folder are noticed at once"),
    ("ConcurrentSync", "mirrors are checked by proofs and samples, and one scan per host runs at a time"),
    ("ScanInterval", "mirrors are checked by proofs and samples; see docs/mirrors.md for scans"),
    ("CheckInterval", "servers are probed every --probe-interval, 2s by default"),
    ("DisallowRedirects", "a mirror that redirects is used"),
    ("DisableOnMissingFile", "a missing file excludes the mirror from this file, not from all"),
    ("WeightDistributionRange", "the policy weighs the place and the load of servers; see docs/selection.md"),
    ("FixTimezoneOffsets", "modification times are not compared"),
    ("Hashes", "the digests are SHA-256"),
];

/// A configuration of mirrorbits.
#[derive(Debug, Clone, Default)]
pub(super) struct MirrorbitsConfig {
    pub(super) redis_address: Option<String>,
    pub(super) redis_password: Option<String>,
    pub(super) redis_database: i64,
    values: HashMap<String, Value>,
}

impl MirrorbitsConfig {
    /// Parses the file, which is YAML.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let read = || {
            let config = Config::builder().add_source(File::from_str(text, FileFormat::Yaml)).build()?;
            let get = |key| config.get_string(key).ok();
            Ok(Self {
                redis_address: get("RedisAddress"),
                redis_password: get("RedisPassword"),
                redis_database: config.get_int("RedisDB").unwrap_or_default(),
                values: config.try_deserialize()?,
            })
        };
        read().map_err(|error: config::ConfigError| error.to_string())
    }

    fn text(&self, key: &str) -> Option<String> {
        self.values.get(key)?.clone().into_string().ok().filter(|text| !text.is_empty())
    }

    /// The settings of a balancer with the same meaning.
    fn settings(&self) -> Vec<String> {
        // The redirects of mirrorbits have this status.
        let mut settings = vec!["status = 302".to_owned()];
        let quoted = |text: &str| format!("\"{}\"", text.escape_default());
        if let Some(folder) = self.text("Repository") {
            settings.push(format!("catalogue_root = {}", quoted(&folder)));
        }
        if let Some(folder) = self.text("GeoipDatabasePath") {
            let folder = folder.trim_end_matches('/');
            let files = ["City", "ASN"].map(|kind| quoted(&format!("{folder}/GeoLite2-{kind}.mmdb")));
            settings.push(format!("geo = [{}]", files.join(", ")));
        }
        if let Some((host, port)) =
            self.text("ListenAddress").as_deref().and_then(|text| text.rsplit_once(':'))
        {
            if !host.is_empty() {
                settings.push(format!("host = {}", quoted(host.trim_matches(['[', ']']))));
            }
            settings.push(format!("port = {}", port.escape_default()));
        }
        if let Some(links) = self.text("MaxLinkHeaders").and_then(|text| text.parse::<usize>().ok()) {
            settings.push(format!("alternates = {}", links.min(MOST_ALTERNATES)));
        }
        settings
    }

    /// The mirrors for a failure of the database.
    fn fallbacks(&self) -> Vec<MirrorbitsMirror> {
        let list = self.values.get("Fallbacks").and_then(|list| list.clone().into_array().ok());
        let fallback = |value: Value| {
            let table = value.into_table().ok()?;
            let get = |key: &str| table.get(key).and_then(|value| value.clone().into_string().ok());
            let names =
                [("http", "URL"), ("countryCodes", "CountryCode"), ("continentCode", "ContinentCode")];
            let fields = names.into_iter().filter_map(|(own, key)| Some((own.to_owned(), get(key)?)));
            Some(MirrorbitsMirror::of_fields("fallback".to_owned(), fields.collect()))
        };
        list.unwrap_or_default().into_iter().filter_map(fallback).collect()
    }
}

/// A mirror of mirrorbits, as the hash `MIRROR_<number>` in Redis has it.
#[derive(Debug, Clone, Default)]
pub(super) struct MirrorbitsMirror {
    name: String,
    fields: HashMap<String, String>,
}

impl MirrorbitsMirror {
    /// The mirror of this name.
    pub(super) fn of_fields(name: String, fields: HashMap<String, String>) -> Self {
        Self { name, fields }
    }

    /// A field; empty if there is none.
    fn text(&self, field: &str) -> &str {
        self.fields.get(field).map_or("", |text| text.trim())
    }

    fn is_set(&self, field: &str) -> bool {
        matches!(self.text(field), "1" | "true")
    }

    fn score(&self) -> i64 {
        self.text("score").parse().unwrap_or(0)
    }

    /// Words of letters and digits, in upper case.
    fn codes(&self, field: &str) -> Vec<String> {
        let words = self.text(field).split(|character: char| !character.is_ascii_alphanumeric());
        words.filter(|word| !word.is_empty() && *word != "0").map(str::to_ascii_uppercase).collect()
    }
}

/// Parses the output of `mirrorbits export mirmon`: lines of country, URL and address of the admin. The line with the rsync URL
/// of a mirror precedes the one with its http URL.
pub(super) fn parse_export(text: &str) -> Vec<MirrorbitsMirror> {
    let (mut mirrors, mut rsync) = (Vec::new(), None);
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(country), Some(url)) = (words.next(), words.next()) else { continue };
        if url.starts_with("rsync://") {
            rsync = Some(url);
        } else if !url.starts_with("ftp://") {
            let fields =
                [("countryCodes", country), ("http", url), ("rsync", rsync.take().unwrap_or_default())];
            let fields = fields.into_iter().map(|(field, text)| (field.to_owned(), text.to_owned()));
            let enabled = [("enabled".to_owned(), "1".to_owned())];
            mirrors.push(MirrorbitsMirror::of_fields(String::new(), fields.chain(enabled).collect()));
        }
    }
    mirrors
}

/// A list of servers, and remarks about features without an equivalent.
#[derive(Debug, Default)]
pub(super) struct ConvertedList {
    pub(super) list: String,
    pub(super) remarks: Vec<String>,
}

/// Converts mirrors and configuration.
pub(super) fn convert(configuration: &MirrorbitsConfig, mirrors: &[MirrorbitsMirror]) -> ConvertedList {
    let mut converted = ConvertedList::default();
    converted.list.push_str("# From mirrorbits. Settings for the file after --config:\n#   [balancer]\n");
    for setting in configuration.settings() {
        // Writing to a string cannot fail.
        let _ = writeln!(converted.list, "#   {setting}");
    }
    for (key, advice) in UNCONVERTED {
        if configuration.values.contains_key(key) {
            converted.remarks.push(format!("{key}: {advice}"));
        }
    }
    let has_scores = mirrors.iter().any(|mirror| mirror.score() != 0);
    for mirror in mirrors {
        let weight = if has_scores { COMMON_WEIGHT + mirror.score() * COMMON_WEIGHT / 100 } else { 1 };
        converted.add(mirror, weight, "");
    }
    // Like fallbacks of mirrorbits, servers of a higher tier are used only if there is no other one.
    for mirror in configuration.fallbacks() {
        let enabled = [("enabled".to_owned(), "1".to_owned())];
        let fields = mirror.fields.into_iter().chain(enabled).collect();
        converted.add(&MirrorbitsMirror { fields, ..mirror }, 1, " tier=1");
    }
    converted
}

impl ConvertedList {
    fn remark(&mut self, mirror: &str, text: &str) {
        self.remarks.push(format!("mirror {mirror}: {text}"));
    }

    /// Adds the line of a mirror.
    fn add(&mut self, mirror: &MirrorbitsMirror, weight: i64, attributes: &str) {
        let visible =
            |text: &str| text.chars().filter(|character| !character.is_control()).collect::<String>();
        let url = mirror.text("http");
        let name = visible(if mirror.name.is_empty() { url } else { &mirror.name });
        // An address without a scheme has both schemes in newer versions of mirrorbits.
        let scheme = if url.contains("://") { "" } else { "http://" };
        let address = format!("{scheme}{}", url.trim_end_matches('/'));
        if let Err(error) = list::parse_address(&address) {
            self.remark(&name, &format!("its HTTP URL is not usable: {error}"));
            let _ = writeln!(self.list, "# {name}: {}", visible(url));
            return;
        }
        if !scheme.is_empty() {
            self.remark(&name, "its URL has no scheme; add a line with https:// if it has https, too");
        }
        let mut line = address + attributes;
        if weight != 1 {
            let _ = write!(line, " weight={}", weight.clamp(1, list::MAX_WEIGHT.into()));
        }
        self.put_place(mirror, &name, &mut line);
        self.put_scan(mirror, &name, &mut line);
        for (field, text) in [
            ("customData", "its custom data has no equivalent"),
            ("ftp", "FTP is not used; add scan= with an rsync or http URL, or proof="),
            ("sponsorName", "the sponsor is not shown to clients"),
        ] {
            if !mirror.text(field).is_empty() && (field != "ftp" || mirror.text("rsync").is_empty()) {
                self.remark(&name, text);
            }
        }
        if mirror.text("allowredirects") == "2" {
            self.remark(&name, "it is used even if it redirects, which mirrorbits forbids for it");
        }
        let is_disabled = !mirror.is_set("enabled");
        let (start, end) = if is_disabled { ("# disabled: ", "") } else { ("", " ") };
        let _ = writeln!(self.list, "{start}{line}{end} # {name}");
    }

    /// Appends the place of a mirror and the clients that it gets.
    fn put_place(&mut self, mirror: &MirrorbitsMirror, name: &str, line: &mut String) {
        let [countries, continents, excluded] =
            ["countryCodes", "continentCode", "excludedCountryCodes"].map(|field| mirror.codes(field));
        let numbers: Vec<String> = mirror.codes("asnum").iter().map(|number| format!("AS{number}")).collect();
        for (key, values) in [("country", &countries), ("continent", &continents), ("asn", &numbers)] {
            if let Some(value) = values.first() {
                let _ = write!(line, " {key}={value}");
            }
        }
        if let [first, _, ..] = countries.as_slice() {
            self.remark(name, &format!("only its first country, {first}, is its place"));
        }
        let place = ["latitude", "longitude"].map(|field| mirror.text(field).parse().unwrap_or(0.0_f64));
        if place != [0.0, 0.0] {
            let _ = write!(line, " lat={} lon={}", place[0], place[1]);
        }
        let continents: Vec<String> = continents.iter().map(|code| format!("continent:{code}")).collect();
        // mirrorbits applies each of these rules; the strictest one includes the others.
        let rules = [("asOnly", numbers), ("countryOnly", countries), ("continentOnly", continents)];
        if let Some((_, only)) =
            rules.into_iter().find(|(field, only)| mirror.is_set(field) && !only.is_empty())
        {
            let _ = write!(line, " only={}", only.join(","));
        }
        if !excluded.is_empty() {
            let _ = write!(line, " not={}", excluded.join(","));
        }
    }

    /// Appends the URL of scans.
    fn put_scan(&mut self, mirror: &MirrorbitsMirror, name: &str, line: &mut String) {
        let url = mirror.text("rsync");
        if url.is_empty() {
            return;
        }
        match Url::parse(url) {
            Ok(parsed)
                if parsed.scheme() == "rsync" && parsed.username().is_empty() && !url.contains('#') =>
            {
                let _ = write!(line, " scan={parsed}");
            }
            _ => self.remark(name, "its rsync URL is not usable; write scan=rsync://host/module/path"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURATION: &str = "\
Repository: /srv/repo
GeoipDatabasePath: /usr/share/GeoIP/
ListenAddress: :8080
MaxLinkHeaders: 3
OutputMode: auto
RedisAddress: 10.0.0.1:6379
RedisDB: 2
Hashes:
    SHA256: On
    SHA1: Off
Fallbacks:
    - URL: http://fallback.example/repo/
      CountryCode: fr
      ContinentCode: eu
";

    fn mirror(name: &str, fields: &[(&str, &str)]) -> MirrorbitsMirror {
        let fields = fields.iter().map(|(field, text)| ((*field).to_owned(), (*text).to_owned()));
        MirrorbitsMirror::of_fields(name.to_owned(), fields.collect())
    }

    #[test]
    fn a_configuration_becomes_settings_and_remarks() {
        let configuration = MirrorbitsConfig::parse(CONFIGURATION).unwrap();
        assert_eq!(configuration.redis_address.as_deref(), Some("10.0.0.1:6379"));
        assert_eq!(configuration.redis_database, 2);
        let ConvertedList { list, remarks } = convert(&configuration, &[]);
        assert_eq!(
            list,
            "# From mirrorbits. Settings for the file after --config:\n#   [balancer]\n#   status = 302\n\
             #   catalogue_root = \"/srv/repo\"\n\
             #   geo = [\"/usr/share/GeoIP/GeoLite2-City.mmdb\", \"/usr/share/GeoIP/GeoLite2-ASN.mmdb\"]\n\
             #   port = 8080\n#   alternates = 3\n\
             http://fallback.example/repo tier=1 country=FR continent=EU  # fallback\n"
        );
        assert_eq!(remarks.len(), 2, "{remarks:?}");
        assert!(remarks[0].starts_with("OutputMode: ") && remarks[1].starts_with("Hashes: "), "{remarks:?}");
        assert!(MirrorbitsConfig::parse("a: [").is_err());
    }

    #[test]
    fn a_mirror_becomes_a_line() {
        let mirrors = [
            mirror(
                "one",
                &[
                    ("http", "http://one.example/pub/"),
                    ("rsync", "rsync://one.example/pub/"),
                    ("enabled", "1"),
                    ("countryCodes", "FR DE"),
                    ("continentCode", "EU"),
                    ("asnum", "64500"),
                    ("countryOnly", "1"),
                    ("continentOnly", "1"),
                    ("latitude", "48.8566"),
                    ("longitude", "2.3522"),
                    ("score", "50"),
                    ("excludedCountryCodes", "CH"),
                ],
            ),
            mirror(
                "two",
                &[
                    ("http", "two.example"),
                    ("enabled", "true"),
                    ("ftp", "ftp://two.example/"),
                    ("asnum", "0"),
                ],
            ),
            mirror(
                "three",
                &[("http", "https://three.example:8443/"), ("enabled", "0"), ("customData", "{}")],
            ),
            mirror("evil\n4.example:80", &[("http", "http://x y/\n5.example:80"), ("enabled", "1")]),
        ];
        let ConvertedList { list, remarks } = convert(&MirrorbitsConfig::default(), &mirrors);
        let lines: Vec<&str> = list.lines().skip(3).collect();
        assert_eq!(
            lines,
            [
                "http://one.example/pub weight=150 country=FR continent=EU asn=AS64500 lat=48.8566 lon=2.3522 only=FR,DE \
             not=CH scan=rsync://one.example/pub/  # one",
                "http://two.example weight=100  # two",
                "# disabled: https://three.example:8443 weight=100 # three",
                "# evil4.example:80: http://x y/5.example:80",
            ]
        );
        let about =
            |name: &str| remarks.iter().filter(|text| text.starts_with(&format!("mirror {name}"))).count();
        assert_eq!(["one", "two", "three", "evil"].map(about), [1, 2, 1, 1], "{remarks:?}");
    }

    #[test]
    fn an_export_has_the_rsync_url_before_the_http_url() {
        let text = "FR\trsync://a.example/pub/ \tadmin@a.example\nFR\thttp://a.example/pub/\tadmin@a.example\n\
                    FR\tftp://a.example/\n\nDE\thttp://b.example/\t\n";
        let ConvertedList { list, .. } = convert(&MirrorbitsConfig::default(), &parse_export(text));
        let lines: Vec<&str> = list.lines().skip(3).collect();
        assert_eq!(
            lines,
            [
                "http://a.example/pub country=FR scan=rsync://a.example/pub/  # http://a.example/pub/",
                "http://b.example country=DE  # http://b.example/",
            ]
        );
    }
}
