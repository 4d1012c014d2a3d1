//! Inherited descriptors, by number, and the paths that lead to them.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// Folders with the descriptors of the calling process.
const FOLDERS: [&str; 2] = ["/proc/self/fd", "/dev/fd"];

/// The number of the descriptor at `path`, for example of `/dev/fd/3`.
pub(super) fn number_of(path: &Path) -> Option<i32> {
    let folder = path.parent()?.canonicalize().ok()?;
    let is_own = FOLDERS.iter().any(|own| Path::new(own).canonicalize().is_ok_and(|own| own == folder));
    path.file_name()?.to_str()?.parse().ok().filter(|number| is_own && *number >= 0)
}

/// Duplicates the descriptor `number`; both handles share the position in the file.
pub(super) fn duplicate(number: i32) -> io::Result<File> {
    if number == 1 && at_start::output_was_closed() {
        return Err(rustix::io::Errno::BADF.into());
    }
    // SAFETY: the number is not negative. The borrow lasts for one system call, which fails if the descriptor
    // is not open. The borrow closes nothing.
    #[allow(
        unsafe_code,
        reason = "the standard library has safe handles for the first three descriptors only"
    )]
    let borrowed = unsafe { BorrowedFd::borrow_raw(number.max(0)) };
    borrowed.try_clone_to_owned().map(File::from)
}

/// Before `main`, the standard library opens /dev/null in place of a closed standard output. A file written
/// to it would be lost without an error, so the state before that is recorded.
mod at_start {
    use std::os::fd::BorrowedFd;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    /// Static, because standard output is global to the process.
    static OUTPUT_WAS_CLOSED: AtomicBool = AtomicBool::new(false);

    // SAFETY: the C library calls each function pointer of this section once, on the only thread, before `main`. The function makes
    // one system call and sets a flag; it needs nothing that is not initialised yet, and cannot panic.
    #[allow(unsafe_code, reason = "no later point sees the descriptor as it was")]
    #[used]
    #[unsafe(link_section = ".init_array")]
    static NOTE: extern "C" fn() = note;

    extern "C" fn note() {
        // SAFETY: the borrow lasts for one system call, which fails if the descriptor is not open.
        #[allow(unsafe_code, reason = "as above")]
        let output = unsafe { BorrowedFd::borrow_raw(1) };
        OUTPUT_WAS_CLOSED.store(rustix::io::fcntl_getfd(output).is_err(), Relaxed);
    }

    pub(super) fn output_was_closed() -> bool {
        OUTPUT_WAS_CLOSED.load(Relaxed)
    }
}
