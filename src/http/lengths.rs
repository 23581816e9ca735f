//! Whether the header of a request says in two ways how long its body is. hyper goes by the chunks then and drops
//! the length unseen; a proxy in front may have gone by the length.

/// The longest name that counts.
const LONGEST: usize = "transfer-encoding".len();

/// Reads a header as it comes.
#[derive(Debug, Default)]
pub(super) struct Lengths {
    name: Vec<u8>,
    /// Behind the colon of a line.
    in_value: bool,
    /// A line that is not empty has been seen.
    begun: bool,
    ended: bool,
    length: bool,
    coding: bool,
}

impl Lengths {
    /// Takes the next octets; whether both names have been seen. What lies behind the header is not looked at.
    pub(super) fn are_two(&mut self, octets: &[u8]) -> bool {
        for octet in octets {
            if self.ended {
                break;
            }
            match octet {
                b'\n' => self.end_line(),
                b':' if !self.in_value => {
                    self.length |= self.name.eq_ignore_ascii_case(b"content-length");
                    self.coding |= self.name.eq_ignore_ascii_case(b"transfer-encoding");
                    self.in_value = true;
                }
                b'\r' => {}
                _ if self.in_value || self.name.len() > LONGEST => {}
                _ => self.name.push(*octet),
            }
        }
        self.length && self.coding
    }

    fn end_line(&mut self) {
        let empty = self.name.is_empty() && !self.in_value;
        self.ended = empty && self.begun;
        self.begun |= !empty;
        self.name.clear();
        self.in_value = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_names_in_any_order_and_case_however_they_come() {
        let line = "\r\nPOST http://h:1/wsman HTTP/1.1\r\n";
        let (length, coding) = ("CONTENT-length: 5\r\n", "transfer-Encoding:chunked\r\n");
        let other = "Accept: content-length: transfer-encoding:\r\n";
        for (lines, expected) in [
            ([length, other, coding], true),
            ([coding, length, other], true),
            ([length, other, length], false),
            ([coding, other, other], false),
        ] {
            let header = format!("{line}{}\r\n", lines.concat());
            assert_eq!(Lengths::default().are_two(header.as_bytes()), expected);
            let mut slow = Lengths::default();
            let bytes = header.as_bytes().chunks(1);
            assert_eq!(bytes.fold(false, |_, b| slow.are_two(b)), expected);
        }
    }

    #[test]
    fn a_body_is_not_looked_at() {
        let mut it = Lengths::default();
        let header = "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n";
        assert!(!it.are_two(header.as_bytes()));
        assert!(!it.are_two(b"Transfer-Encoding: chunked\r\n"));
    }
}
