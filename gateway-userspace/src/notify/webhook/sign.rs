//! Signatures: an HMAC-SHA-256 (RFC 2104) over the time and the body, by which the receiver knows who sent it, and when.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Longest secret, in bytes.
const MOST: u64 = 4_096;
/// Shortest: as long as what it protects against guessing.
const LEAST: usize = 16;

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// It cannot be read.
    #[error("the secret {} cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Anybody may read or write it.
    #[error("the secret {} is open to everybody (mode {mode:04o}); chmod o-rwx it", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is none.
    #[error("the secret {} must be a regular file of {LEAST} to {MOST} bytes", path.display())]
    Size {
        /// The file.
        path: PathBuf,
    },
}

/// Reads a secret. A line's end behind it does not count.
///
/// # Errors
/// Where it cannot be read, may be read by everybody, or is no secret.
pub(crate) fn read_secret(path: &Path) -> Result<Vec<u8>, SecretError> {
    let failed = |source| SecretError::Io {
        path: path.to_owned(),
        source,
    };
    let size = || SecretError::Size {
        path: path.to_owned(),
    };
    // A pipe would be waited for.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(size());
    }
    let file = File::open(path).map_err(failed)?;
    // Of the file that was opened, not of whatever has its name now.
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(SecretError::Open {
            path: path.to_owned(),
            mode,
        });
    }
    let mut secret = Vec::new();
    file.take(MOST + 1).read_to_end(&mut secret).map_err(failed)?;
    while secret.last().is_some_and(|last| matches!(last, b'\n' | b'\r')) {
        secret.pop();
    }
    if (LEAST..=MOST as usize).contains(&secret.len()) {
        Ok(secret)
    } else {
        Err(size())
    }
}

/// The value of `Weir-Signature`: the time in seconds since 1970, and the sum of it, a dot and the body.
pub(super) fn signature(secret: &[u8], at: i64, body: &[u8]) -> Option<String> {
    // A key of any length will do.
    let mut sum = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    sum.update(format!("{at}.").as_bytes());
    sum.update(body);
    let mut header = format!("t={at},v1=");
    for byte in sum.finalize().into_bytes() {
        let _ = write!(header, "{byte:02x}");
    }
    Some(header)
}

#[cfg(test)]
pub(super) mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use sha2::Digest as _;

    use super::*;

    /// HMAC by its definition: H(K ⊕ opad, H(K ⊕ ipad, text)), with a hash of 64-byte blocks.
    pub(in super::super) fn by_definition(key: &[u8], text: &[u8]) -> String {
        let mut block = [0_u8; 64];
        if key.len() > 64 {
            block[..32].copy_from_slice(&Sha256::digest(key));
        } else {
            block[..key.len()].copy_from_slice(key);
        }
        let inner = Sha256::digest([&block.map(|byte| byte ^ 0x36)[..], text].concat());
        let outer = Sha256::digest([&block.map(|byte| byte ^ 0x5c)[..], &inner].concat());
        outer.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    #[test]
    fn it_is_an_hmac() {
        // RFC 4231, test case 2.
        assert_eq!(
            by_definition(b"Jefe", b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        for secret in [&b"0123456789abcdef"[..], &[7; 64], &[9; 131]] {
            let body = b"{\"schema\":1}";
            let text = [&b"1795769940."[..], body].concat();
            let expected = format!("t=1795769940,v1={}", by_definition(secret, &text));
            assert_eq!(signature(secret, 1_795_769_940, body), Some(expected));
        }
    }

    #[test]
    fn a_secret_is_for_few() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let write = |bytes: &[u8], mode: u32| {
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            read_secret(&path).map_err(|error| error.to_string())
        };
        assert_eq!(
            write(b"0123456789abcdef\r\n", 0o640).unwrap(),
            b"0123456789abcdef"
        );
        let open = write(b"0123456789abcdef", 0o644).unwrap_err();
        assert!(open.contains("(mode 0644); chmod o-rwx"), "{open}");
        assert!(write(b"0123456789abcdef", 0o602).is_err());
        assert!(write(b"short\n", 0o600).unwrap_err().contains("16 to 4096 bytes"));
        assert!(write(&[b'x'; 4_097], 0o600).unwrap_err().contains("16 to 4096"));
        assert_eq!(write(&[b'x'; 4_096], 0o600).unwrap().len(), 4_096);
        let gone = read_secret(&folder.path().join("none")).unwrap_err().to_string();
        assert!(gone.contains("none cannot be read"), "{gone}");
        assert!(
            read_secret(folder.path())
                .unwrap_err()
                .to_string()
                .contains("regular file")
        );
    }
}
