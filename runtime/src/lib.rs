//! umcg
