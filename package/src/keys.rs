//! Whose packages are taken: public keys in the format of `minisign`.

use goplug_pconf_schema::{Code, Fault, printable};
use minisign_verify::{PublicKey, Signature};

use crate::wrong;

/// The most keys that are trusted at once.
const MAX_KEYS: usize = 1_000;

/// A public key, as `minisign` writes it: 56 characters, which begin with `RW`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    text: String,
    key: PublicKey,
}

impl Key {
    /// Reads a key: the 56 characters, or a `.pub` file of `minisign` with a comment above them.
    ///
    /// # Errors
    /// `invalid_argument`: it is no such key.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
        match PublicKey::from_base64(line) {
            Ok(key) => Ok(Self { text: line.to_owned(), key }),
            Err(_) => Err(wrong(format!(
                "`{}` is no public key of minisign: 56 characters that begin with RW",
                printable(&line.chars().take(80).collect::<String>())
            ))),
        }
    }

    /// The 56 characters.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Who signed a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    /// The owner of this key, which is trusted.
    Trusted(Key),
    /// Somebody, and it was not to be found out who: [`Keys::whoever`].
    Somebody,
    /// Nobody, which was allowed.
    Nobody,
}

/// The keys whose packages are taken.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    keys: Vec<Key>,
    is_unsigned_allowed: bool,
    is_anybody_allowed: bool,
}

impl Keys {
    /// Packages that one of these keys signed.
    ///
    /// # Errors
    /// `invalid_argument`: there are more than 1,000.
    pub fn new(keys: Vec<Key>) -> Result<Self, Fault> {
        if keys.len() > MAX_KEYS {
            return Err(wrong(format!("{} keys are more than the {MAX_KEYS} that can be trusted", keys.len())));
        }
        Ok(Self { keys, ..Self::default() })
    }

    /// Besides them packages that nobody signed. One with a signature that is not in order is refused all the same.
    #[must_use]
    pub fn allow_unsigned(self) -> Self {
        Self { is_unsigned_allowed: true, ..self }
    }

    /// To look at packages, not to install them: whoever signed them, or nobody.
    #[must_use]
    pub fn whoever() -> Self {
        Self { keys: Vec::new(), is_unsigned_allowed: true, is_anybody_allowed: true }
    }

    /// Who signed `contents`.
    pub(crate) fn signer(&self, contents: &[u8], signature: Option<&[u8]>) -> Result<Signer, Fault> {
        let denied = |text: String| Err(Fault::new(Code::Denied, text));
        let Some(signature) = signature else {
            if self.is_unsigned_allowed {
                return Ok(Signer::Nobody);
            }
            return denied("nobody signed the package, and unsigned packages are not allowed".into());
        };
        let text = str::from_utf8(signature).map_err(|_| wrong("its signature is no text"))?;
        let signature = Signature::decode(text).map_err(|_| wrong("its signature is none of minisign"))?;
        // Which of the keys it is does the signature say; only a hint, so every key is tried.
        for key in &self.keys {
            if key.key.verify(contents, &signature, false).is_ok() {
                return Ok(Signer::Trusted(key.clone()));
            }
        }
        match self.keys.len() {
            _ if self.is_anybody_allowed => Ok(Signer::Somebody),
            0 => denied("the package is signed, and no key is trusted yet".into()),
            trusted => denied(format!("none of the {trusted} trusted keys made the signature of the package")),
        }
    }
}
