//! Networks, distances and bands.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fingerpost::internals::geography::{
    Band, Coordinates, CountryCode, GeoDatabase, GeoPlace, Network, NetworkRanges, NetworkTable,
};
use proptest::prelude::*;

/// Addresses with few different bits, so that networks contain each other.
fn address() -> impl Strategy<Value = IpAddr> {
    let few = prop_oneof![Just(0_u8), Just(1), Just(128), Just(255), any::<u8>()];
    prop_oneof![
        [few.clone(), few.clone(), few.clone(), few.clone()].prop_map(|bytes| Ipv4Addr::from(bytes).into()),
        prop::collection::vec(few, 16)
            .prop_map(|bytes| Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap()).into()),
    ]
}

fn networks() -> impl Strategy<Value = Vec<Network>> {
    let network = (address(), 0..=128_u32).prop_map(|(address, length)| {
        Network::new(address, if address.is_ipv4() { length / 4 } else { length }).unwrap()
    });
    prop::collection::vec(network, 0..40)
}

fn coordinates() -> impl Strategy<Value = Coordinates> {
    (-90.0..=90.0, -180.0..=180.0)
        .prop_map(|(latitude, longitude)| Coordinates::new(latitude, longitude).unwrap())
}

fn place() -> impl Strategy<Value = GeoPlace> {
    let country = prop::option::of(prop::sample::select(&["DE", "FR", "US", "CA", "JP"][..]));
    (country, prop::option::of(1..4_u32), prop::option::of(coordinates())).prop_map(
        |(country, asn, coordinates)| {
            let country = country.map(|country| country.parse::<CountryCode>().unwrap());
            GeoPlace { country, asn, coordinates, continent: None }.with_continent()
        },
    )
}

/// The index of the longest prefix with the address; the first one of equal prefixes.
fn longest(networks: &[Network], address: IpAddr) -> Option<usize> {
    let length = |index: &usize| {
        networks[*index].to_string().split_once('/').map(|(_, length)| {
            length.parse::<u32>().unwrap() + if networks[*index].to_string().contains(':') { 0 } else { 96 }
        })
    };
    (0..networks.len()).filter(|index| networks[*index].contains(address)).rev().max_by_key(length)
}

proptest! {
    #[test]
    fn the_longest_prefix_owns_an_address(networks in networks(), addresses in prop::collection::vec(address(), 20)) {
        let ranges = NetworkRanges::new(&networks);
        for address in addresses {
            prop_assert_eq!(ranges.owner(ranges.range(address)), longest(&networks, address), "{}", address);
        }
    }

    #[test]
    fn the_addresses_of_a_range_are_in_the_same_networks(networks in networks(), addresses in prop::collection::vec(address(), 20)) {
        let ranges = NetworkRanges::new(&networks);
        for address in addresses {
            let example = Ipv6Addr::from_bits(ranges.example(ranges.range(address)).unwrap()).into();
            for network in &networks {
                prop_assert_eq!(network.contains(address), network.contains(example), "{} {}", network, address);
            }
        }
    }

    #[test]
    fn a_printed_network_parses_to_the_same_network(networks in networks()) {
        for network in networks {
            prop_assert_eq!(network.to_string().parse::<Network>().unwrap(), network);
        }
    }

    #[test]
    fn a_distance_is_symmetric_and_at_most_half_the_circumference(one in coordinates(), other in coordinates()) {
        let distance = one.distance(other);
        prop_assert!((0.0..=20_016.0).contains(&distance), "{}", distance);
        prop_assert!((distance - other.distance(one)).abs() < 1e-6);
        prop_assert!(one.distance(one) < 1e-6);
    }

    #[test]
    fn a_band_is_symmetric_and_the_first_that_applies(one in place(), other in place(), same: bool) {
        let band = Band::between(&one, &other, same);
        prop_assert_eq!(band, Band::between(&other, &one, same));
        let equal = |one: Option<u32>, other: Option<u32>| one.is_some() && one == other;
        if same || equal(one.asn, other.asn) {
            prop_assert_eq!(band, Band::SameNetwork);
        } else if one.country.is_some() && one.country == other.country {
            prop_assert_eq!(band, Band::SameCountry);
        } else {
            let is_near = one.distance(&other).is_some_and(|distance| distance <= 500.0);
            prop_assert_eq!(band == Band::Near, is_near);
        }
    }

    #[test]
    fn random_bytes_are_no_database(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(GeoDatabase::parse(bytes).is_err());
    }

    #[test]
    fn any_table_is_parsed_or_refused_with_a_line(text in "([0-9a-f.:/]{0,12}( country=(DE|XX)| asn=[0-9]{1,3}| lat=[0-9]{1,3}| #x)?\n){0,5}") {
        if let Err(error) = NetworkTable::parse(text.as_bytes()) {
            prop_assert!(error.to_string().starts_with("line "), "{}", error);
        }
    }
}

#[test]
fn a_known_distance() {
    let berlin = Coordinates::new(52.52, 13.405).unwrap();
    let paris = Coordinates::new(48.8566, 2.3522).unwrap();
    let distance = berlin.distance(paris);
    assert!((865.0..890.0).contains(&distance), "{distance}");
    for (latitude, longitude) in [(90.1, 0.0), (0.0, -180.1), (f64::NAN, 0.0), (0.0, f64::INFINITY)] {
        assert_eq!(Coordinates::new(latitude, longitude), None);
    }
}
