//! What happens during a download, told to whoever shows it. Nothing else in the client prints.

use std::path::Path;

use url::Url;

/// Something a person may want to see.
#[derive(Debug)]
pub enum Event<'a> {
    /// A server answered with a redirect that is followed.
    Redirected {
        /// Status line and headers as they were received.
        head: &'a [u8],
        /// The page that came with it, cut where it is too long to be one.
        page: &'a [u8],
        /// The address it leads to.
        to: &'a Url,
    },
    /// A server answered with something that is neither the file nor a redirect that can be followed.
    Refused {
        /// Status line and headers as they were received.
        head: &'a [u8],
        /// The page that came with it, cut where it is too long to be one.
        page: &'a [u8],
    },
    /// The file itself begins to arrive.
    Started {
        /// The name it will get; `None` for standard output.
        target: Option<&'a Path>,
        /// Its size in bytes, where known.
        size: Option<u64>,
    },
    /// More of the file arrived.
    Received {
        /// How many bytes.
        bytes: u64,
    },
    /// The file is complete.
    Finished {
        /// The name it has; `None` for standard output.
        target: Option<&'a Path>,
        /// Its size in bytes.
        size: u64,
    },
}

/// Is told what happens.
pub trait Observer {
    /// Takes note of `event`; must return at once.
    fn notice(&self, event: &Event<'_>);
}
