//! umcg-examples
