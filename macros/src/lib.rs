//! umcg-macros
