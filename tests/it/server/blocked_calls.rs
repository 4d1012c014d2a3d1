//! System calls that a container runtime or an old kernel refuses.

use std::os::unix::fs::symlink;

use super::{Server, pattern};
use crate::support::program::fingerpost;
use crate::support::seccomp::refuse;

const ERRORS: [i32; 2] = [libc::EPERM, libc::ENOSYS];

#[test]
fn links_beneath_the_root_are_followed_without_openat2() {
    for errno in ERRORS {
        let server = Server::launch(refuse(&mut fingerpost(), libc::SYS_openat2, errno), &["--listing"]);
        server.put("pool/v2/disk.iso", pattern(300_000));
        server.put("small", "small");
        std::fs::write(server.outside().join("secret"), "secret").unwrap();
        for (target, link) in [
            ("pool/v2/disk.iso", "latest.iso"),
            ("v2", "pool/stable"),
            ("../secret", "out"),
            ("/etc/hostname", "absolute"),
        ] {
            symlink(target, server.root().join(link)).unwrap();
        }
        // Twice, because the second answer may be sent from memory.
        for _ in 0..2 {
            assert_eq!(server.get("/small").text(), "small");
            for target in ["/pool/v2/disk.iso", "/latest.iso", "/pool/stable/disk.iso"] {
                assert!(server.get(target).body == pattern(300_000), "{target} after {errno}");
            }
            assert!(server.get("/pool/stable/").text().contains("disk.iso"));
            for target in ["/out", "/absolute", "/pool/nothing"] {
                assert_eq!(server.get(target).status, 404, "{target} after {errno}");
            }
        }
    }
}

#[test]
fn files_of_every_size_are_served_without_optional_system_calls() {
    const CALLS: [libc::c_long; 5] =
        [libc::SYS_preadv2, libc::SYS_memfd_create, libc::SYS_statx, libc::SYS_fadvise64, libc::SYS_sendfile];
    for call in CALLS {
        for errno in ERRORS {
            let server = Server::launch(refuse(&mut fingerpost(), call, errno), &[]);
            for size in [1000, 100_000, 2_000_000] {
                let name = size.to_string();
                server.put(&name, pattern(size));
                for _ in 0..2 {
                    let answer = server.get(&format!("/{name}"));
                    assert!(answer.status == 200 && answer.body == pattern(size), "{call} {errno} {size}");
                }
            }
        }
    }
}
