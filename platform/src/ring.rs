//! Consistent hashing: whose turn a key is, the same by our reckoning and by nginx's `hash $key consistent`.
//!
//! The algorithm is that of nginx's upstream hash module (`ngx_http_upstream_hash_module`, documented at
//! <https://nginx.org/en/docs/http/ngx_http_upstream_module.html#hash>), which is itself compatible with the ketama of
//! `Cache::Memcached::Fast`: every member has 160 points on a circle of 32 bits; the first is the CRC-32 of its host, a
//! zero byte, its port and four zero bytes, each further one that of the same with the point before it, little-endian,
//! in place of the zeroes. A key belongs to the first point that is not below the key's CRC-32.

/// Points of one member: those that nginx gives to a server of weight 1.
const POINTS: usize = 160;

/// The circle of some members; each is a host, with a port where it has one, as nginx's `server` names it.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    members: usize,
    /// Points and whose they are, ascending.
    points: Vec<(u32, usize)>,
}

impl Ring {
    /// A ring of these members, who are known by their places in the list from here on.
    pub fn new<M: AsRef<str>>(members: &[M]) -> Self {
        let mut points = Vec::with_capacity(members.len() * POINTS);
        for (index, member) in members.iter().enumerate() {
            let (host, port) = split(member.as_ref());
            let base = [host.as_bytes(), &[0], port.as_bytes()].iter().fold(START, |state, part| update(state, part));
            let mut previous = 0_u32;
            for _ in 0..POINTS {
                previous = !update(base, &previous.to_le_bytes());
                points.push((previous, index));
            }
        }
        points.sort_unstable();
        points.dedup_by_key(|(point, _)| *point);
        Self { members: members.len(), points }
    }

    /// The members in the order in which they are to be tried for a key: its owner first, each once.
    pub fn order(&self, key: &str) -> impl Iterator<Item = usize> {
        let hash = crc32(key.as_bytes());
        let first = self.points.partition_point(|(point, _)| *point < hash);
        let mut seen = vec![false; self.members];
        let around = self.points[first..].iter().chain(&self.points[..first]);
        around.map(|(_, member)| *member).filter(move |member| !std::mem::replace(&mut seen[*member], true))
    }
}

/// Host and port; a port is digits behind the last colon.
fn split(member: &str) -> (&str, &str) {
    match member.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
        _ => (member, ""),
    }
}

/// The state of a CRC-32 of nothing.
const START: u32 = u32::MAX;

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0_u32;
    while index < 256 {
        // IEEE 802.3's polynomial, reflected.
        let (mut state, mut bit) = (index, 0);
        while bit < 8 {
            state = if state & 1 == 1 { (state >> 1) ^ 0xedb8_8320 } else { state >> 1 };
            bit += 1;
        }
        table[index as usize] = state;
        index += 1;
    }
    table
};

fn update(state: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(state, |state, byte| TABLE[usize::from(state.to_le_bytes()[0] ^ byte)] ^ (state >> 8))
}

fn crc32(bytes: &[u8]) -> u32 {
    !update(START, bytes)
}

#[cfg(test)]
mod tests;
