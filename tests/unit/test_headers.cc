// The unit that the precompiled headers of tests are made with (tests/unit/CMakeLists.txt).
