#pragma once

#include <cstdio>
#include <string>

namespace millrace {

/// Prints a line on standard error. One that cannot be printed, on a full disk or a terminal that is gone,
/// ends nothing.
inline void tell(const std::string& sentence) { std::fputs((sentence + "\n").c_str(), stderr); }

}  // namespace millrace
