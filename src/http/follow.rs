//! Detects request smuggling: a shadow parser that follows the bytes of a connection to see a header with two lengths:
//! Content-Length and Transfer-Encoding, or Content-Length twice. hyper resolves the first silently in favour of the
//! chunks, where a proxy in front may have gone by the length, and takes the second for one if both say the same.
//!
//! It only raises that flag; hyper alone decides where requests begin and end. On anything it cannot parse it gives up,
//! as hyper will refuse that and close the connection.

/// The longest name that counts.
const LONGEST: usize = "transfer-encoding".len();

/// Where in a request the next octet stands.
#[derive(Debug, Default)]
enum At {
    /// In the line of a header that begins a message, or in the line breaks before it.
    #[default]
    Start,
    /// Further on in the header.
    Header,
    /// So many octets of the body are still to come.
    Body(u64),
    /// In the line that tells the size of a chunk, in its digits or behind them.
    Size { size: u64, in_digits: bool },
    /// So many octets of a chunk are still to come.
    Chunk(u64),
    /// Behind the octets of a chunk.
    ChunkEnd,
    /// In the lines behind the last chunk; has this one any character?
    Trailer { empty: bool },
    /// Behind something that this reader does not understand.
    Lost,
}

/// Reads a connection as it comes.
#[derive(Debug, Default)]
pub(super) struct Follower {
    at: At,
    line: Line,
    length: Option<u64>,
    chunked: bool,
    /// Headers that have come to their end.
    headers: u64,
    /// The first whose header has two lengths, counted from 1.
    bad: Option<u64>,
}

/// A line of a header: its name, and of a length its value.
#[derive(Debug, Default)]
struct Line {
    name: Vec<u8>,
    value: Option<u64>,
    /// Behind the colon.
    in_value: bool,
}

impl Follower {
    /// Takes the next octets.
    pub(super) fn take(&mut self, mut octets: &[u8]) {
        while let Some((first, rest)) = octets.split_first() {
            octets = match &mut self.at {
                At::Body(left) | At::Chunk(left) if *left > 0 => skip(left, octets),
                At::Header if *first != b'\n' => self.line.take(octets),
                _ => {
                    self.octet(*first);
                    rest
                }
            };
            if let At::Body(0) = self.at {
                self.at = At::Start;
            }
        }
    }

    /// Has the request of that number, from 1, two lengths in its header?
    pub(super) fn is_bad(&self, request: u64) -> bool {
        self.bad == Some(request)
    }

    /// Is a request, so far as it has come, complete?
    pub(super) fn is_between(&self) -> bool {
        matches!(self.at, At::Start)
    }

    /// In the body of a request?
    pub(super) fn is_in_body(&self) -> bool {
        !matches!(self.at, At::Start | At::Header | At::Lost)
    }

    fn octet(&mut self, octet: u8) {
        match &mut self.at {
            At::Start if matches!(octet, b'\r' | b'\n') => {}
            At::Start => {
                (self.length, self.chunked) = (None, false);
                self.line.clear();
                self.line.take(&[octet]);
                self.at = At::Header;
            }
            At::Header => self.end_line(),
            At::Size { size, in_digits } => {
                if octet == b'\n' {
                    self.at = match *size {
                        0 => At::Trailer { empty: true },
                        size => At::Chunk(size),
                    };
                } else if *in_digits {
                    self.at = digit(*size, octet);
                }
            }
            At::Chunk(_) => {
                self.at = At::ChunkEnd;
                self.octet(octet);
            }
            At::ChunkEnd if octet == b'\n' => self.at = SIZE,
            At::ChunkEnd if octet == b'\r' => {}
            At::ChunkEnd => self.at = At::Lost,
            At::Trailer { empty } => match (octet, *empty) {
                (b'\n', true) => self.at = At::Start,
                (b'\n', false) => *empty = true,
                (b'\r', _) => {}
                _ => *empty = false,
            },
            At::Body(_) | At::Lost => {}
        }
    }

    fn end_line(&mut self) {
        let line = &mut self.line;
        if !line.is_empty() {
            if line.is_length() {
                if self.length.is_some() {
                    self.bad = self.bad.or(Some(self.headers.saturating_add(1)));
                }
                self.length = self.length.or(Some(line.value.unwrap_or(0)));
            }
            self.chunked |= line.name.eq_ignore_ascii_case(b"transfer-encoding");
            line.clear();
            return;
        }
        self.headers = self.headers.saturating_add(1);
        if self.length.is_some() && self.chunked {
            self.bad = self.bad.or(Some(self.headers));
        }
        self.at = match (self.chunked, self.length) {
            (true, _) => SIZE,
            (false, Some(length)) if length > 0 => At::Body(length),
            (false, _) => At::Start,
        };
    }
}

const SIZE: At = At::Size {
    size: 0,
    in_digits: true,
};

fn digit(size: u64, octet: u8) -> At {
    let digit = char::from(octet).to_digit(16).map(u64::from);
    let Some(digit) = digit else {
        let in_digits = false;
        return At::Size { size, in_digits };
    };
    match size.checked_mul(16).and_then(|s| s.checked_add(digit)) {
        Some(size) => At::Size {
            size,
            in_digits: true,
        },
        None => At::Lost,
    }
}

/// Passes over octets of a body.
fn skip<'o>(left: &mut u64, octets: &'o [u8]) -> &'o [u8] {
    let all = u64::try_from(octets.len()).unwrap_or(u64::MAX);
    let n = all.min(*left);
    *left -= n;
    let n = usize::try_from(n).unwrap_or(octets.len());
    octets.get(n..).unwrap_or_default()
}

/// What is before the first octet like that, and the rest from there on.
fn split(octets: &[u8], at: u8) -> (&[u8], &[u8]) {
    let end = octets.iter().position(|octet| *octet == at);
    let parts = octets.split_at_checked(end.unwrap_or(octets.len()));
    parts.unwrap_or_default()
}

impl Line {
    fn is_empty(&self) -> bool {
        self.name.is_empty() && !self.in_value
    }

    fn is_length(&self) -> bool {
        self.name.eq_ignore_ascii_case(b"content-length")
    }

    /// The beginning of another line. The room for its name stays.
    fn clear(&mut self) {
        self.name.clear();
        (self.value, self.in_value) = (None, false);
    }

    /// Takes what comes before the end of the line; the rest.
    fn take<'o>(&mut self, octets: &'o [u8]) -> &'o [u8] {
        let (mut line, rest) = split(octets, b'\n');
        if !self.in_value {
            let (name, value) = split(line, b':');
            let room = (LONGEST + 1).saturating_sub(self.name.len());
            let name = name.iter().filter(|octet| **octet != b'\r');
            self.name.extend(name.take(room));
            (self.in_value, line) = (!value.is_empty(), value);
        }
        if self.in_value && self.is_length() {
            for digit in line.iter().filter(|octet| octet.is_ascii_digit()) {
                let before = self.value.unwrap_or(0);
                let digit = u64::from(digit - b'0');
                self.value = Some(before.saturating_mul(10).saturating_add(digit));
            }
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The requests with two lengths among these octets, given all at once and one by one.
    fn bad(octets: &str) -> Vec<u64> {
        let mut whole = Follower::default();
        whole.take(octets.as_bytes());
        let mut slow = Follower::default();
        octets.bytes().for_each(|octet| slow.take(&[octet]));
        let found = |it: &Follower| (1..=it.headers).filter(|n| it.is_bad(*n)).collect();
        let (whole, slow): (Vec<_>, Vec<_>) = (found(&whole), found(&slow));
        assert_eq!(whole, slow, "{octets:?}");
        whole
    }

    fn header(lines: &str) -> String {
        format!("POST http://h:1/wsman HTTP/1.1\r\nHost: h\r\n{lines}\r\n")
    }

    const TWO: &str = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n";
    const CHUNKS: &str = "A;x=\"1\"\r\n0123456789\r\n002\r\nab\r\n0;last\r\nTrailer: t\r\n\r\n";

    #[test]
    fn two_lengths_in_any_order_and_case() {
        let (length, coding) = ("CONTENT-length: 5\r\n", "transfer-Encoding:chunked\r\n");
        let other = "Accept: content-length: transfer-encoding:\r\n";
        for (lines, expected) in [
            ([length, other, coding], true),
            ([coding, length, other], true),
            ([length, other, length], true),
            ([coding, other, other], false),
        ] {
            assert_eq!(
                bad(&header(&lines.concat())),
                Vec::from_iter(expected.then_some(1))
            );
        }
    }

    #[test]
    fn behind_requests_of_every_kind() {
        let empty = header("");
        let none = header("Content-Length: 0\r\n");
        // What looks like a header in a body, or in a trailer, is none.
        let inner = header(TWO);
        let sized = format!(
            "{}{inner}",
            header(&format!("Content-Length: {}\r\n", inner.len()))
        );
        let chunked = format!("{}{CHUNKS}", header("Transfer-Encoding: chunked\r\n"));
        let in_chunk = format!(
            "{}{:X}\r\n{inner}\r\n0\r\n\r\n",
            header("Transfer-Encoding: chunked\r\n"),
            inner.len()
        );
        let before = [empty, none, sized, chunked, in_chunk, "\r\n\r\n".to_owned()].concat();
        assert!(bad(&before).is_empty());
        assert_eq!(bad(&[before.clone(), header(TWO)].concat()), [6]);
        let bare = header(TWO).replace("\r\n", "\n");
        assert_eq!(bad(&[before, bare].concat()), [6]);
    }

    #[test]
    fn where_it_cannot_follow_it_says_nothing() {
        let chunked = header("Transfer-Encoding: chunked\r\n");
        for broken in ["fffffffffffffffff\r\n", "1\r\nabc\r\n0\r\n\r\n"] {
            assert!(
                bad(&format!("{chunked}{broken}{}", header(TWO))).is_empty(),
                "{broken}"
            );
        }
        let huge = header("Content-Length: 99999999999999999999\r\n");
        assert!(bad(&format!("{huge}{}", header(TWO))).is_empty());
    }

    #[test]
    fn it_knows_where_in_a_request_it_stands() {
        let mut it = Follower::default();
        let mut place = |octets: &str| {
            it.take(octets.as_bytes());
            (it.is_between(), it.is_in_body())
        };
        assert_eq!(place(""), (true, false));
        assert_eq!(
            place("POST / HTTP/1.1\r\nContent-Length: 2"),
            (false, false)
        );
        assert_eq!(place("\r\n\r\n"), (false, true));
        assert_eq!(place("a"), (false, true));
        assert_eq!(place("b"), (true, false));
        assert_eq!(place("\r\n"), (true, false));
        assert_eq!(place("P"), (false, false));
    }
}
