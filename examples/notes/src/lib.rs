//! A service that keeps notes: HTTP/1.1 by `httparse`, SQLite by `rusqlite`, and a pool of database
//! connections by `r2d2`. All of its code blocks.
//!
//! | request | what it does |
//! |---|---|
//! | `GET /notes/ID` | reads a note |
//! | `GET /slow/ID` | reads a note and then sleeps for 1 ms, as if it waited for another service |
//! | `GET /burn/MS` | computes for that number of milliseconds, 1000 at most |
//! | `POST /notes` | adds a note, whose text is the body, and answers with its number |
//!
//! The binary `notes` is the service, `notes-load` sends it requests and measures the answers, and
//! `notes-bench` does both for each system in turn. README.md has the commands.

pub mod connection;
pub mod load;
pub mod on_tokio;
pub mod open_files;
pub mod service;
pub mod store;
