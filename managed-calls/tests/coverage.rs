//! The list of managed functions: that of the README, and each of them defined in this program.

use std::ffi::{CStr, CString};

umcg_managed_calls::define!();

const README: &str = include_str!("../README.md");

/// What stands between backquotes in this part of the README.
fn quoted(part: &str) -> Vec<&str> {
    part.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_readme_lists_what_is_managed() {
    let (_, rest) = README.split_once("## What is managed").unwrap();
    let (managed, not) = rest.split_once("## What is not managed").unwrap();
    let listed = quoted(managed);
    for name in umcg_managed_calls::names() {
        assert!(
            listed.contains(&name),
            "{name} is managed and not in the README"
        );
    }
    let known: Vec<_> = umcg_managed_calls::names().collect();
    for name in quoted(not) {
        assert!(
            !known.contains(&name),
            "{name} is managed, and the README says that it is not"
        );
    }
    for name in listed {
        let other = name.starts_with("SYS_") || name == "exec";
        assert!(
            other || known.contains(&name),
            "{name} is in the README and not managed"
        );
    }
}

#[test]
fn each_function_is_this_programs_own() {
    let address_of = |name: &CStr| {
        // SAFETY: a C string.
        unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
    };
    let program = |address: *const std::ffi::c_void| {
        // SAFETY: all zeros are a valid Dl_info, which the call fills.
        unsafe {
            let mut info: libc::Dl_info = std::mem::zeroed();
            assert_ne!(libc::dladdr(address, &raw mut info), 0);
            info.dli_fbase
        }
    };
    let own = program(each_function_is_this_programs_own as *const std::ffi::c_void);
    for name in umcg_managed_calls::names() {
        let address = address_of(&CString::new(name).unwrap());
        assert!(!address.is_null(), "{name} is not exported");
        assert_eq!(program(address), own, "{name} is another library's");
    }
}
