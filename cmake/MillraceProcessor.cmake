# Writes what -march=MILLRACE_ARCH lets the compiler use beyond the oldest x86-64: a line for each set of instructions, by the
# compiler's own macros. It leaves out those that only intrinsics use, which we do not, and those that it has no question for.
function(millrace_write_processor_needs file)
  execute_process(COMMAND ${CMAKE_CXX_COMPILER} -march=${MILLRACE_ARCH} -dM -E -x c++ /dev/null
    OUTPUT_VARIABLE macros COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "#define __(SSE[34][A-Z0-9_]*|SSSE3|AVX[A-Z0-9_]*|FMA4?|XOP|F16C|BMI2?|LZCNT|POPCNT|MOVBE)__ 1" macros "${macros}")
  list(SORT macros COMPARE NATURAL)
  set(lines "")
  foreach(macro ${macros})
    string(REGEX REPLACE "#define __(.*)__ 1" "\\1" name "${macro}")
    string(TOLOWER "${name}" name)
    string(REPLACE "_" "." name "${name}")  # sse4.1
    set(need "{\"${name}\", __builtin_cpu_supports(\"${name}\") != 0},")
    execute_process(COMMAND ${CMAKE_COMMAND} -E echo "struct { const char* name; bool is_there; } needs[] = {${need}};"
      COMMAND ${CMAKE_CXX_COMPILER} -x c++ -S -o /dev/null - RESULT_VARIABLE unknown ERROR_QUIET)
    if(NOT unknown)
      string(APPEND lines "${need}\n")
    endif()
  endforeach()
  file(CONFIGURE OUTPUT ${file} CONTENT "${lines}" @ONLY)
endfunction()
