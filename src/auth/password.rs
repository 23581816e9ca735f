//! Argon2id hashes as PHC strings, computed in memory that goes back to the system.

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Error, Params, Version};

/// Capacity of the memory for one hash, in blocks of 1 KiB. Pieces of more than 32 MiB get a mapping of their
/// own from every allocator and leave with it; the 19 MiB that are used of it would stay with the process
/// after the first login. What is not used costs no memory.
const OWN_MAPPING: usize = (32 << 10) + 1;

/// The hash of a password with a fresh salt. Takes 19 MiB and some ten milliseconds.
///
/// # Errors
/// The library's words.
pub(super) fn hash(password: &str) -> Result<String, String> {
    let mut salt = [0; Salt::RECOMMENDED_LENGTH];
    getrandom::fill(&mut salt).map_err(|e| e.to_string())?;
    let argon2 = Argon2::default();
    let length = Params::DEFAULT_OUTPUT_LEN;
    let output = compute(&argon2, password, &salt, length).map_err(|e| e.to_string())?;
    let phc = PasswordHash {
        algorithm: Algorithm::default().ident(),
        version: Some(Version::default().into()),
        params: ParamsString::try_from(argon2.params()).map_err(|e| e.to_string())?,
        salt: Some(Salt::new(&salt).map_err(|e| e.to_string())?),
        hash: Some(output),
    };
    Ok(phc.to_string())
}

/// Is it the password of that hash? A hash that cannot be read is nobody's.
pub(super) fn matches(password: &str, stored: &str) -> bool {
    expected_and_found(password, stored).is_some_and(|(expected, found)| {
        // Takes the same time wherever they differ.
        expected == found
    })
}

fn expected_and_found(password: &str, stored: &str) -> Option<(Output, Output)> {
    let phc = PasswordHash::new(stored).ok()?;
    let (salt, expected) = (phc.salt?, phc.hash?);
    let algorithm = Algorithm::try_from(phc.algorithm.as_str()).ok()?;
    let version = phc.version.map(Version::try_from).transpose().ok()?;
    let params = Params::try_from(&phc).ok()?;
    let argon2 = Argon2::new(algorithm, version.unwrap_or_default(), params);
    let found = compute(&argon2, password, &salt, expected.as_bytes().len()).ok()?;
    Some((expected, found))
}

fn compute(
    argon2: &Argon2<'_>,
    password: &str,
    salt: &[u8],
    length: usize,
) -> Result<Output, Error> {
    let blocks = argon2.params().block_count();
    let mut memory = Vec::with_capacity(blocks.max(OWN_MAPPING));
    memory.resize(blocks, Block::default());
    let mut output = vec![0; length];
    argon2.hash_password_into_with_memory(password.as_bytes(), salt, &mut output, &mut memory)?;
    Output::new(&output).map_err(|_| Error::OutputTooLong)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `password`, by the reference implementation.
    const FOREIGN: &str =
        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

    #[test]
    fn a_hash_is_that_of_its_password_only() {
        let stored = hash("correct").unwrap();
        assert!(
            stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{stored}"
        );
        assert!(matches("correct", &stored));
        assert!(!matches("Correct", &stored));
        assert!(!matches("", &stored));
        assert_ne!(hash("correct").unwrap(), stored, "the salt is fresh");
    }

    #[test]
    fn hashes_of_other_programs_are_read_and_broken_ones_are_nobodys() {
        assert!(matches("password", FOREIGN));
        assert!(!matches("Password", FOREIGN));
        for broken in [
            "",
            "x",
            "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ",
            "$argon2id$v=19$m=1,t=0,p=0$c29tZXNhbHQ$CTFhFdXPJO1aFaMa",
        ] {
            assert!(!matches("password", broken), "{broken}");
        }
    }
}
