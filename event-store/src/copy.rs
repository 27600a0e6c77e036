//! PostgreSQL's binary COPY format, as far as rows of the log need it.

use uuid::Uuid;

use crate::chain::Row;

/// The columns of an event, in the order in which [`EventRow`] takes them.
pub(crate) struct Columns;

impl Columns {
    pub(crate) const NAMES: &'static str = "topic, shard, position, key, seq, aggregate_type, aggregate_id, sequence, \
         event_id, event_type, event_version, at, payload, metadata, hash";
}

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// PostgreSQL counts from 2000, we from 1970.
const EPOCH_US: i64 = 946_684_800_000_000;

/// Cuts a stream of bytes into tuples.
#[derive(Debug, Default)]
pub(crate) struct Tuples {
    begun: bool,
    /// The beginning of a tuple whose end did not come yet.
    rest: Vec<u8>,
}

impl Tuples {
    /// Hands on each whole tuple.
    pub(crate) fn feed(
        &mut self,
        chunk: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), sqlx::Error>,
    ) -> Result<(), sqlx::Error> {
        if self.rest.is_empty() {
            let used = self.cut(chunk, &mut each)?;
            self.rest.extend_from_slice(&chunk[used..]);
        } else {
            let mut whole = std::mem::take(&mut self.rest);
            whole.extend_from_slice(chunk);
            let used = self.cut(&whole, &mut each)?;
            whole.drain(..used);
            self.rest = whole;
        }
        Ok(())
    }

    fn cut(
        &mut self,
        bytes: &[u8],
        each: &mut impl FnMut(&[u8]) -> Result<(), sqlx::Error>,
    ) -> Result<usize, sqlx::Error> {
        let mut used = 0;
        if !self.begun {
            let Some(header) = bytes.get(..SIGNATURE.len() + 8) else { return Ok(0) };
            if !header.starts_with(SIGNATURE) {
                return Err(malformed());
            }
            let extension = Reader(&header[SIGNATURE.len() + 4..]).length().ok_or_else(malformed)?.unwrap_or(0);
            used = header.len() + extension;
            if bytes.len() < used {
                return Ok(0);
            }
            self.begun = true;
        }
        while let Some(tuple) = tuple(&bytes[used..]) {
            // The end of the data is a tuple of -1 columns.
            if tuple.len() > 2 {
                each(tuple)?;
            }
            used += tuple.len();
        }
        Ok(used)
    }
}

/// The first tuple, if all of it is there.
fn tuple(bytes: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader(bytes);
    let columns = reader.small()?;
    for _ in 0..columns {
        if let Some(length) = reader.length()? {
            reader.bytes(length)?;
        }
    }
    Some(&bytes[..bytes.len() - reader.0.len()])
}

fn malformed() -> sqlx::Error {
    sqlx::Error::Protocol("COPY answered with something else than rows of the log".to_owned())
}

/// A row of the log, where it lies.
#[derive(Debug)]
pub(crate) struct EventRow<'a> {
    pub(crate) hashed: Row<'a>,
    /// Of any length: it is what a row claims.
    pub(crate) hash: &'a [u8],
}

impl<'a> EventRow<'a> {
    pub(crate) fn parse(tuple: &'a [u8]) -> Result<Self, sqlx::Error> {
        let mut reader = Reader(tuple);
        Self::read(&mut reader).ok_or_else(malformed)
    }

    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        if reader.small()? != 15 {
            return None;
        }
        let hashed = Row {
            topic: reader.field()?.map(i16::from_be_bytes)?,
            shard: reader.field()?.map(i16::from_be_bytes)?,
            position: reader.field()?.map(i64::from_be_bytes)?,
            key: reader.field()?.map(Uuid::from_bytes)?,
            seq: reader.field()?.map(i64::from_be_bytes),
            aggregate_type: reader.field()?.map(i16::from_be_bytes)?,
            aggregate_id: reader.field()?.map(Uuid::from_bytes)?,
            sequence: reader.field()?.map(i32::from_be_bytes)?,
            event_id: reader.field()?.map(Uuid::from_bytes)?,
            event_type: reader.slice()??,
            event_version: reader.field()?.map(i16::from_be_bytes)?,
            at_us: reader.field()?.map(i64::from_be_bytes)?.wrapping_add(EPOCH_US),
            payload: reader.slice()??,
            metadata: reader.slice()?,
        };
        Some(Self { hashed, hash: reader.slice()?? })
    }

    /// The position, where it is one.
    pub(crate) fn position(&self) -> Option<u64> {
        u64::try_from(self.hashed.position).ok().filter(|position| *position > 0)
    }
}

/// Bytes not read yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn small(&mut self) -> Option<i16> {
        self.bytes(2)?.try_into().ok().map(i16::from_be_bytes)
    }

    /// The length of a field; `Some(None)` is a null.
    #[expect(clippy::option_option, reason = "not there yet, null, or a length")]
    fn length(&mut self) -> Option<Option<usize>> {
        let length = i32::from_be_bytes(self.bytes(4)?.try_into().ok()?);
        Some(usize::try_from(length).ok())
    }

    #[expect(clippy::option_option, reason = "cut short, null, or a value")]
    fn slice(&mut self) -> Option<Option<&'a [u8]>> {
        match self.length()? {
            None => Some(None),
            Some(length) => self.bytes(length).map(Some),
        }
    }

    #[expect(clippy::option_option, reason = "cut short, null, or a value")]
    fn field<const N: usize>(&mut self) -> Option<Option<[u8; N]>> {
        match self.slice()? {
            None => Some(None),
            Some(bytes) => bytes.try_into().ok().map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> (Vec<u8>, Vec<Vec<u8>>) {
        let tuples = vec![
            [&2_i16.to_be_bytes()[..], &(-1_i32).to_be_bytes(), &3_i32.to_be_bytes(), b"abc"].concat(),
            [&1_i16.to_be_bytes()[..], &0_i32.to_be_bytes()].concat(),
        ];
        let header = [SIGNATURE, &[0; 4], &2_i32.to_be_bytes(), b"xx"].concat();
        ([header, tuples.concat(), (-1_i16).to_be_bytes().to_vec()].concat(), tuples)
    }

    #[test]
    fn tuples_are_found_however_the_stream_is_cut() {
        let (bytes, tuples) = stream();
        for size in 1..=bytes.len() {
            let mut cutter = Tuples::default();
            let mut found = Vec::new();
            for chunk in bytes.chunks(size) {
                cutter
                    .feed(chunk, |tuple| {
                        found.push(tuple.to_vec());
                        Ok(())
                    })
                    .unwrap();
            }
            assert_eq!(found, tuples, "in chunks of {size}");
            assert!(cutter.rest.is_empty());
        }
    }

    #[test]
    fn other_data_is_refused() {
        assert!(Tuples::default().feed(b"PGCOPY and other words", |_| Ok(())).is_err());
        assert!(EventRow::parse(&[0, 1, 0, 0, 0, 0]).is_err());
    }
}
