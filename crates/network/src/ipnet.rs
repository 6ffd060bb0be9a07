//! An address range in CIDR notation.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network: the lowest address and the prefix length. Host bits are cleared on construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpNet {
    address: IpAddr,
    prefix: u8,
}

impl IpNet {
    /// The network of `address` with `prefix` leading bits; none when `prefix` exceeds the family's width.
    pub fn new(address: IpAddr, prefix: u8) -> Option<IpNet> {
        let address = match address {
            IpAddr::V4(a) if prefix <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() & mask))
            }
            IpAddr::V6(a) if prefix <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & mask))
            }
            _ => return None,
        };
        Some(IpNet { address, prefix })
    }

    /// A network whose `address` has no host bits and whose `prefix` fits.
    pub(crate) const fn literal(address: IpAddr, prefix: u8) -> IpNet {
        IpNet { address, prefix }
    }

    /// The lowest address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The number of leading bits all members share.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether this is an IPv6 network.
    pub fn is_ipv6(&self) -> bool {
        self.address.is_ipv6()
    }

    /// Whether `address` lies in this network (never across families).
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv6() == self.is_ipv6() && IpNet::new(address, self.prefix) == Some(*self)
    }

    /// How many addresses there are, as a power of two.
    pub fn host_bits(&self) -> u8 {
        (if self.is_ipv6() { 128 } else { 32 }) - self.prefix
    }

    /// The `n`th address, counted from the lowest; none beyond the network's end.
    pub fn nth(&self, n: u64) -> Option<IpAddr> {
        if self.host_bits() < 64 && n >= 1 << self.host_bits() {
            return None;
        }
        Some(match self.address {
            IpAddr::V4(a) => IpAddr::V4(Ipv4Addr::from_bits(a.to_bits().wrapping_add(n as u32))),
            IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits().wrapping_add(u128::from(n)))),
        })
    }
}

impl fmt::Display for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The text was not `address/prefix`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address range in CIDR notation")]
pub struct ParseError(String);

impl FromStr for IpNet {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<IpNet, ParseError> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            IpNet::new(address.parse().ok()?, prefix.parse().ok()?)
        };
        parse().ok_or_else(|| ParseError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let net: IpNet = "10.42.3.7/24".parse().unwrap();
        assert_eq!(net.to_string(), "10.42.3.0/24");
        assert!(net.contains("10.42.3.255".parse().unwrap()));
        assert!(!net.contains("10.42.4.0".parse().unwrap()) && !net.contains("::1".parse().unwrap()));
        assert_eq!(net.nth(255), Some("10.42.3.255".parse().unwrap()));
        assert_eq!(net.nth(256), None);
        let six: IpNet = "fd00:1::/64".parse().unwrap();
        assert_eq!(six.nth(16), Some("fd00:1::10".parse().unwrap()));
        for bad in ["10.0.0.0", "10.0.0.0/33", "::/129", "x/8"] {
            assert!(bad.parse::<IpNet>().is_err(), "{bad}");
        }
        assert!("0.0.0.0/0".parse::<IpNet>().unwrap().contains("9.9.9.9".parse().unwrap()));
    }
}
