//! Has the migrations compiled in anew when a file comes: a macro reads their folders, which the compiler does not know.

fn main() {
    for folder in ["event-store", "read-models", "state"] {
        println!("cargo::rerun-if-changed={folder}");
    }
}
