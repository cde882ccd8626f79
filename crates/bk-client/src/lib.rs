//! Build container images with BuildKit, inside Docker Engine or standalone.
