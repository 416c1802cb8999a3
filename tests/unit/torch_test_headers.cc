// The unit that the precompiled header of tests is made with (tests/unit/CMakeLists.txt).
