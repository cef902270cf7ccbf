//! umcg-tests
