# Filled by the package work: install targets, headers and millraceConfig.cmake.
