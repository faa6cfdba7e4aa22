//! Bounded strings: names of locks and files, labels, reasons.
//!
//! A value of these types is valid by construction; decoding checks the same rules. They are data:
//! a name is never used as a path.
//!
//! They never change, so clones share their bytes: the name of a lock appears in the table, in the
//! queue, in the session, in the history and in what is told about it, and is allocated once.

use alloc::string::String;
use alloc::sync::Arc;
use core::borrow::Borrow;
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The most bytes of a name, or of any other text here.
pub const TEXT_BYTES_MAX: usize = 255;

/// Why a string is no name, label or reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TextError {
    /// A name has at least one byte.
    Empty,
    /// More than [`TEXT_BYTES_MAX`] bytes.
    TooLong {
        /// How many bytes there were.
        bytes: usize,
    },
    /// A name is made of segments separated by `/`, and one of them is empty.
    EmptySegment,
    /// A control character, such as a line break.
    ControlCharacter,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a name must not be empty"),
            Self::TooLong { bytes } => {
                write!(f, "{bytes} bytes are too many: the limit is {TEXT_BYTES_MAX}")
            }
            Self::EmptySegment => {
                f.write_str("a name must not start or end with '/', nor contain '//'")
            }
            Self::ControlCharacter => {
                f.write_str("control characters, such as line breaks, are not allowed")
            }
        }
    }
}

impl core::error::Error for TextError {}

/// The rule of every text: bounded, and without control characters.
fn check_text(text: &str) -> Result<(), TextError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(TextError::TooLong { bytes: text.len() });
    }
    if has_control(text) {
        return Err(TextError::ControlCharacter);
    }
    Ok(())
}

/// Every name of every command passes here, and most are ASCII, where a byte is a character.
fn has_control(text: &str) -> bool {
    if text.is_ascii() {
        text.bytes().any(|byte| byte.is_ascii_control())
    } else {
        text.chars().any(char::is_control)
    }
}

/// The rule of a name: a text of one or more segments, none of them empty.
fn check_name(text: &str) -> Result<(), TextError> {
    check_text(text)?;
    if text.is_empty() {
        return Err(TextError::Empty);
    }
    if text.as_bytes().split(|byte| *byte == b'/').any(<[u8]>::is_empty) {
        return Err(TextError::EmptySegment);
    }
    Ok(())
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes a string.
            ///
            /// # Errors
            /// [`TextError`] says which rule it breaks.
            pub fn new(text: impl Into<String>) -> Result<Self, TextError> {
                let text = text.into();
                $check(&text)?;
                Ok(Self(text.into()))
            }

            /// The string itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        /// Ordered and compared as its text is, so a map can be searched by text.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <&str>::deserialize(deserializer)?;
                $check(text).map_err(de::Error::custom)?;
                Ok(Self(text.into()))
            }
        }
    };
}

text! {
    /// The name of a lock: 1 to 255 bytes of UTF-8, segments separated by `/`.
    LockName, check_name
}
text! {
    /// The name of a guarded file: 1 to 255 bytes of UTF-8, segments separated by `/`.
    FileName, check_name
}
text! {
    /// A short text for people, at most 255 bytes: a part of a label, the reason of a break.
    Text, check_text
}

impl Default for Text {
    /// The empty text.
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// Who a session belongs to, for people who ask who holds a lock. It decides nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Label {
    /// The machine.
    pub host: Text,
    /// The process on it; zero where there is none.
    pub pid: u32,
    /// The person or account.
    pub user: Text,
    /// What is running.
    pub command: Text,
}
