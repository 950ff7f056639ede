//! Whose packages are taken: a public key a line in `trusted-keys`, with a comment behind it. An operator may edit the file.

use goplug_package::{Key, Keys};
use goplug_pconf_schema::admin::TrustedKey;
use goplug_pconf_schema::settings::Unsigned;
use goplug_pconf_schema::{Code, Fault, Reason, printable};

use super::store::{self, MAX_KEYS_BYTES};
use crate::installed::blocking;
use crate::registry::Registry;
use crate::tasks::Pending;

/// The longest comment.
const MAX_COMMENT: usize = 200;
/// What is said of a key that is none of the file.
const CONFIGURED: &str = "configuration";

impl Registry {
    /// The keys whose packages [`Registry::install`] takes: those of [`Builder::trust_keys`], and those that lie in the folder of
    /// [`Builder::trust_dir`] and are those of every registry that has the same one.
    ///
    /// [`Builder::trust_dir`]: crate::Builder::trust_dir
    /// [`Builder::trust_keys`]: crate::Builder::trust_keys
    ///
    /// # Errors
    /// `internal` when the file cannot be read or believed, with its line.
    pub fn trusted_keys(&self) -> Pending<'_, Result<Vec<TrustedKey>, Fault>> {
        Box::pin(async move {
            let folder = self.trust_folder();
            let named = blocking(move || parse(&store::load_keys(&folder).map_err(internal)?)).await?;
            let configured =
                self.configured_keys().into_iter().map(|key| TrustedKey { key, comment: CONFIGURED.into() });
            let mut keys: Vec<_> = configured.collect();
            keys.extend(
                named.into_iter().filter(|named| keys.iter().all(|known| known.key != named.key)).collect::<Vec<_>>(),
            );
            Ok(keys)
        })
    }

    fn configured_keys(&self) -> Vec<String> {
        self.inner.shared.options.load().trust_keys.clone()
    }

    /// Takes packages of this key from now on: 56 characters, or what `minisign` writes to a `.pub` file. A key that is there
    /// gets the comment, one line of at most 200 characters.
    ///
    /// # Errors
    /// `invalid_argument` when it is no such key; `overloaded` when there are 1,000; as [`Registry::trusted_keys`].
    ///
    /// # Cancel safety
    /// Dropped, it is written or not.
    pub fn trust_key<'a>(&'a self, key: &'a str, comment: &'a str) -> Pending<'a, Result<TrustedKey, Fault>> {
        Box::pin(async move {
            let trusted = TrustedKey { key: Key::parse(key)?.as_str().to_owned(), comment: comment.trim().to_owned() };
            if trusted.comment.chars().count() > MAX_COMMENT || trusted.comment.contains(char::is_control) {
                let text = format!("the comment must be one line of at most {MAX_COMMENT} characters");
                return Err(Fault::new(Code::InvalidArgument, text));
            }
            let added = trusted.clone();
            self.change_keys(move |keys| {
                keys.retain(|known| known.key != added.key);
                keys.push(added);
                Ok(())
            })
            .await?;
            Ok(trusted)
        })
    }

    /// Takes packages of this key no more. What it signed and what is installed stays.
    ///
    /// # Errors
    /// `not_found` when it is not trusted; `wrong_state` for one of the options; as [`Registry::trusted_keys`].
    ///
    /// # Cancel safety
    /// Dropped, it is written or not.
    pub fn distrust_key<'a>(&'a self, key: &'a str) -> Pending<'a, Result<TrustedKey, Fault>> {
        Box::pin(async move {
            let wanted = key.trim().to_owned();
            if self.configured_keys().contains(&wanted) {
                let text = format!("key `{}` is one of the configuration (`keys` in `[trust]`)", printable(&wanted));
                return Err(Fault::new(Code::WrongState, text));
            }
            self.change_keys(move |keys| {
                let at = keys.iter().position(|known| known.key == wanted);
                let unknown = || Fault::new(Code::NotFound, format!("key `{}` is not trusted", printable(&wanted)));
                Ok(keys.remove(at.ok_or_else(unknown)?))
            })
            .await
        })
    }

    /// Whose packages are taken now.
    pub(crate) async fn keys(&self, allow_unsigned: bool) -> Result<Keys, Fault> {
        let allow_unsigned = match self.inner.shared.options.load().unsigned {
            Unsigned::Refuse => false,
            Unsigned::Ask => allow_unsigned,
            Unsigned::Allow => true,
        };
        let trusted = self.trusted_keys().await?;
        let keys = trusted.iter().map(|trusted| Key::parse(&trusted.key)).collect::<Result<_, _>>()?;
        let keys = Keys::new(keys)?;
        Ok(if allow_unsigned { keys.allow_unsigned() } else { keys })
    }

    /// What a package is refused with: to allow it does not help where the options refuse it.
    pub(crate) fn not_taken(&self, fault: Fault) -> Fault {
        let refuses = self.inner.shared.options.load().unsigned == Unsigned::Refuse;
        if !refuses || fault.reason != Some(Reason::Unsigned) {
            return fault;
        }
        let message = "nobody signed it, and the configuration refuses such packages (`unsigned` in `[trust]`)".into();
        Fault { message, reason: None, ..fault }
    }

    async fn change_keys<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Vec<TrustedKey>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let folder = self.trust_folder();
        blocking(move || {
            let mut answer = None;
            store::update_keys(&folder, |text| {
                let mut keys = parse(text).map_err(Refusal)?;
                answer = Some(change(&mut keys).map_err(Refusal)?);
                let text = render(&keys);
                match text.len() <= MAX_KEYS_BYTES && keys.len() <= MAX_KEYS {
                    true => Ok(Some(text)),
                    false => Err(Refusal(Fault::new(Code::Overloaded, format!("there are {MAX_KEYS} trusted keys")))),
                }
            })
            .map_err(|Refusal(fault)| fault)?;
            answer.ok_or_else(|| internal("nothing was changed".into()))
        })
        .await
    }
}

/// The most keys that are kept.
const MAX_KEYS: usize = 1_000;

struct Refusal(Fault);

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self(internal(why))
    }
}

fn internal(why: String) -> Fault {
    Fault::new(Code::Internal, why)
}

/// Empty lines and such as begin with `#` mean nothing.
fn parse(text: &str) -> Result<Vec<TrustedKey>, Fault> {
    if text.len() > MAX_KEYS_BYTES {
        return Err(internal(format!("trusted-keys is larger than {MAX_KEYS_BYTES} bytes")));
    }
    let lines = text.lines().map(str::trim).enumerate();
    let keys = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    keys.map(|(n, line)| {
        let (key, comment) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let key =
            Key::parse(key).map_err(|fault| internal(format!("trusted-keys, line {}: {}", n + 1, fault.message)))?;
        Ok(TrustedKey { key: key.as_str().to_owned(), comment: comment.trim().to_owned() })
    })
    .collect()
}

fn render(keys: &[TrustedKey]) -> String {
    keys.iter().map(|TrustedKey { key, comment }| format!("{key} {comment}").trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

    #[test]
    fn the_file_is_one_that_people_edit() {
        let text = format!("# ours\n\n  {ONE}   the builders \n{ONE}\n");
        let keys = parse(&text).unwrap();
        assert_eq!(keys.len(), 2);
        assert_eq!((keys[0].comment.as_str(), keys[1].comment.as_str()), ("the builders", ""));
        assert_eq!(parse(&render(&keys)).unwrap(), keys);
        assert!(parse("\nRWnonsense\n").unwrap_err().message.contains("line 2"));
    }
}
