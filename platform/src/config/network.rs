//! A network, by its addresses' common beginning.

use std::net::IpAddr;
use std::str::FromStr;

/// An address, or all that begin as it does: `10.0.0.7`, `10.0.0.0/8`, `fd00::/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    bits: u128,
    /// How many of the bits count.
    prefix: u32,
}

/// As IPv6 writes IPv4's addresses, 96 bits stand before them.
const MAPPED: u32 = 96;

impl Network {
    /// Whether the address is one of it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        // All bits count, or none do: a shift by 128 is none.
        (bits(address) ^ self.bits).checked_shr(u128::BITS - self.prefix).unwrap_or_default() == 0
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted =
            || "addresses or networks such as 10.0.0.7 and 10.0.0.0/8, separated by commas, are wanted".to_owned();
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| wanted())?;
        let before = if address.is_ipv4() { MAPPED } else { 0 };
        let longest = u128::BITS - before;
        let prefix = prefix.map_or(Ok(longest), |prefix| prefix.parse().map_err(|_| wanted()))?;
        if prefix > longest {
            return Err(wanted());
        }
        Ok(Self { bits: bits(address), prefix: prefix + before })
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Networks separated by commas.
pub(super) fn list(text: &str) -> Result<Vec<Network>, String> {
    text.split(',').map(str::trim).filter(|network| !network.is_empty()).map(Network::from_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_of_a_network_by_their_beginning() {
        for (network, inside, outside) in [
            ("10.0.0.7", "10.0.0.7", "10.0.0.6"),
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("10.1.2.3/16", "10.1.0.0", "10.2.0.0"),
            ("10.0.0.7", "::ffff:10.0.0.7", "::10.0.0.7"),
            ("0.0.0.0/0", "255.1.1.1", "::1"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::1", "::1", "::2"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{network:?} {inside}");
            assert!(!network.contains(outside.parse().unwrap()), "{network:?} {outside}");
        }
        assert!("::/0".parse::<Network>().unwrap().contains("1.2.3.4".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in ["localhost", "10.0.0", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/8/8"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        assert_eq!(list("10.0.0.7, ::1 ,").unwrap().len(), 2);
    }
}
