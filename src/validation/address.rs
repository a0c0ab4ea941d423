//! Which IP addresses are public: those that neither lead into a network of one's own nor carry another address inside.
//!
//! Sources: the IANA registries of special-purpose addresses (RFC 6890, RFC 8190) as of 2025, and the metadata
//! services of clouds. What is not assigned as global unicast is not public.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is not public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Special {
    /// What it is, in words.
    pub what: &'static str,
    /// Whether a policy may admit it: networks of one's own, as against addresses that are nobody's, everybody's, a cloud's
    /// metadata service, or a disguise.
    pub private: bool,
    /// Whether it is this machine.
    pub loopback: bool,
}

const fn never(what: &'static str) -> Special {
    Special { what, private: false, loopback: false }
}

const fn private(what: &'static str) -> Special {
    Special { what, private: true, loopback: false }
}

const fn loopback(what: &'static str) -> Special {
    Special { what, private: true, loopback: true }
}

/// What is special about an address; none if it is public.
pub fn special(address: IpAddr) -> Option<Special> {
    match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<Special> {
    Some(match address.octets() {
        [0, ..] => never("of this network (0.0.0.0/8)"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => private("private (RFC 1918)"),
        // Alibaba's, in the next range, and Azure's, which is public otherwise.
        [100, 100, 100, 200] | [168, 63, 129, 16] => never("a cloud's metadata service"),
        [100, 64..=127, ..] => private("shared behind a carrier's NAT (RFC 6598)"),
        [127, ..] => loopback("loopback"),
        // The metadata services of AWS, Azure, Google and most others lie in it.
        [169, 254, ..] => never("link-local, where clouds keep their metadata"),
        // Oracle's metadata service lies in it.
        [192, 0, 0, _] => never("for protocols (RFC 6890)"),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => never("for documentation"),
        [192, 31, 196, _] | [192, 52, 193, _] | [192, 175, 48, _] => never("an anycast service's"),
        [192, 88, 99, _] => never("a 6to4 relay"),
        [198, 18..=19, ..] => never("for benchmarks (RFC 2544)"),
        [224..=239, ..] => never("multicast"),
        [240..=255, ..] => never("reserved"),
        _ => return None,
    })
}

fn special_v6(address: Ipv6Addr) -> Option<Special> {
    Some(match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => never("unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => loopback("loopback"),
        [0, 0, 0, 0, 0, 0, ..] => never("IPv4-compatible IPv6"),
        [0, 0, 0, 0, 0, 0xffff, ..] => never("IPv4-mapped IPv6"),
        [0, 0, 0, 0, 0xffff, 0, ..] => never("IPv4-translated IPv6"),
        [0x64, 0xff9b, ..] => never("NAT64"),
        [_, _, _, _, 0 | 0x100 | 0x200 | 0x300, 0x5efe, ..] => never("ISATAP"),
        // AWS's metadata service lies among the unique local ones.
        [0xfd00, 0xec2, ..] => never("a cloud's metadata service"),
        [0xfc00..=0xfdff, ..] => private("unique local (RFC 4193)"),
        [0xfe80..=0xfebf, ..] => never("link-local"),
        [0xfec0..=0xfeff, ..] => never("site-local"),
        [0xff00..=0xffff, ..] => never("multicast"),
        [0x2001, 0, ..] => never("Teredo"),
        [0x2001, 0..=0x1ff, ..] => never("for protocols (RFC 2928)"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => never("for documentation"),
        [0x2002, ..] => never("6to4"),
        [0x2000..=0x3fff, ..] => return None,
        _ => never("not assigned as global unicast"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_range_is_special_from_its_first_address_to_its_last_and_no_further() {
        // First, last, and whether each neighbour is public.
        let ranges = [
            ("0.0.0.0", "0.255.255.255", None, Some("1.0.0.0")),
            ("10.0.0.0", "10.255.255.255", Some("9.255.255.255"), Some("11.0.0.0")),
            ("100.64.0.0", "100.127.255.255", Some("100.63.255.255"), Some("100.128.0.0")),
            ("127.0.0.0", "127.255.255.255", Some("126.255.255.255"), Some("128.0.0.0")),
            ("168.63.129.16", "168.63.129.16", Some("168.63.129.15"), Some("168.63.129.17")),
            ("169.254.0.0", "169.254.255.255", Some("169.253.255.255"), Some("169.255.0.0")),
            ("172.16.0.0", "172.31.255.255", Some("172.15.255.255"), Some("172.32.0.0")),
            ("192.0.0.0", "192.0.0.255", Some("191.255.255.255"), Some("192.0.1.0")),
            ("192.0.2.0", "192.0.2.255", Some("192.0.1.255"), Some("192.0.3.0")),
            ("192.88.99.0", "192.88.99.255", Some("192.88.98.255"), Some("192.88.100.0")),
            ("192.168.0.0", "192.168.255.255", Some("192.167.255.255"), Some("192.169.0.0")),
            ("198.18.0.0", "198.19.255.255", Some("198.17.255.255"), Some("198.20.0.0")),
            ("198.51.100.0", "198.51.100.255", Some("198.51.99.255"), Some("198.51.101.0")),
            ("203.0.113.0", "203.0.113.255", Some("203.0.112.255"), Some("203.0.114.0")),
            ("224.0.0.0", "255.255.255.255", Some("223.255.255.255"), None),
            ("::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None, Some("2000::")),
            ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", Some("2000:ffff::1"), Some("2001:200::")),
            (
                "2001:db8::",
                "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
                Some("2001:db7:ffff::1"),
                Some("2001:db9::"),
            ),
            ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some("2001:ffff::1"), Some("2003::")),
            ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", Some("3ffe:ffff::1"), Some("3fff:1000::")),
            ("4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some("3fff:ffff::1"), None),
        ];
        for (first, last, before, after) in ranges {
            for inside in [first, last] {
                assert!(special(inside.parse().unwrap()).is_some(), "{inside}");
            }
            for outside in before.into_iter().chain(after) {
                assert_eq!(special(outside.parse().unwrap()), None, "{outside}");
            }
        }
    }

    #[test]
    fn what_a_policy_may_admit_is_a_network_of_ones_own() {
        let private =
            ["10.1.2.3", "172.20.0.1", "192.168.1.1", "100.64.0.1", "127.0.0.1", "::1", "fc00::1", "fd12::1"];
        let never = [
            "0.0.0.0",
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::a00:1",
            "2002:a00:1::",
            "2001::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "fd00:ec2::254",
            "2a00::5efe:a00:1",
            "2a00::200:5efe:a00:1",
            "fd00::5efe:a00:1",
        ];
        for address in private {
            assert!(special(address.parse().unwrap()).unwrap().private, "{address}");
        }
        for address in never {
            assert!(!special(address.parse().unwrap()).unwrap().private, "{address}");
        }
    }
}
