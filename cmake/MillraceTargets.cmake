# One target per folder: millrace_add_library(tensor SOURCES ... DEPENDS ...) makes millrace::tensor.

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

find_program(CCACHE ccache)
if(CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${PROJECT_SOURCE_DIR}/cmake/ccache")
endif()

# Flags for our own code only; they are never exported.
add_library(millrace_flags INTERFACE)
target_compile_features(millrace_flags INTERFACE cxx_std_20)
# Sums keep their written order; -fopenmp-simd lets single loops opt out of it by pragma.
set(cpp_flags -Wall -Wextra -Wno-missing-field-initializers $<$<BOOL:${MILLRACE_WERROR}>:-Werror>
  -march=${MILLRACE_ARCH} -fno-math-errno -fno-trapping-math -fopenmp-simd -mprefer-vector-width=512
  $<$<AND:$<BOOL:${MILLRACE_UNITY}>,$<CXX_COMPILER_ID:GNU>>:-Wno-subobject-linkage>)  # a source that another one includes looks like a header
if(NOT MILLRACE_ARCH STREQUAL "native")
  list(APPEND cpp_flags -Wno-psabi)  # how vectors wider than the processor's are passed concerns nobody outside
endif()
set(cuda_flags -Xcompiler=-Wall --expt-relaxed-constexpr $<$<BOOL:${MILLRACE_WERROR}>:-Werror=all-warnings>)
target_compile_options(millrace_flags INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:${cpp_flags}>" "$<$<COMPILE_LANGUAGE:CUDA>:${cuda_flags}>")
# fmt 9 takes nvcc for a compiler without constexpr.
target_compile_definitions(millrace_flags INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:FMT_USE_CONSTEXPR=1>)
if(MILLRACE_SANITIZE)
  # oneTBB casts between unrelated classes by design, which the vptr check reports. GCC 12's own AVX-512 header warns of
  # uninitialized vectors when instrumented.
  target_compile_options(millrace_flags INTERFACE -fsanitize=${MILLRACE_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all -fno-sanitize=vptr -Wno-uninitialized -Wno-maybe-uninitialized)
  target_link_options(millrace_flags INTERFACE -fsanitize=${MILLRACE_SANITIZE})
  # Clang's loops by OpenMP cannot use structured bindings.
  target_compile_options(millrace_flags INTERFACE $<$<CXX_COMPILER_ID:Clang>:-fno-openmp-simd -Wno-unknown-warning-option>)
endif()

# Compiles the sources of a room as one. Kernels stay alone: what the compiler sees beside them changes which products it
# fuses with sums, and so the bits.
function(millrace_unite target)
  if(NOT MILLRACE_UNITY)
    return()
  endif()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
  foreach(source ${ARGN})
    cmake_path(ABSOLUTE_PATH source OUTPUT_VARIABLE path)
    cmake_path(RELATIVE_PATH path BASE_DIRECTORY ${PROJECT_SOURCE_DIR})
    cmake_path(IS_PREFIX PROJECT_BINARY_DIR ${source} generated)
    if(NOT generated AND NOT path MATCHES "^tensor/(cpu|cuda)/|\\.cu$")
      cmake_path(GET path PARENT_PATH room)
      string(REPLACE "/" "_" room "${room}")
      set_source_files_properties(${source} PROPERTIES UNITY_GROUP ${room})
    endif()
  endforeach()
endfunction()

function(millrace_add_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS;PRIVATE_DEPENDS" ${ARGN})
  set(target millrace_${name})
  add_library(${target} STATIC ${ARG_SOURCES})
  add_library(millrace::${name} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(${target} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}> $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/generated>
    $<INSTALL_INTERFACE:include/millrace>)
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_link_libraries(${target} PUBLIC ${ARG_DEPENDS} PRIVATE ${ARG_PRIVATE_DEPENDS} $<BUILD_INTERFACE:millrace_flags>)
  millrace_unite(${target} ${ARG_SOURCES})
  set_property(GLOBAL APPEND PROPERTY MILLRACE_LIBRARIES ${target})
endfunction()

# One test program per folder of tests/; every TEST in it is a ctest of its own (under a sanitizer: the program).
# LOOPS: what takes time to run is the tests' own code.
function(millrace_add_test name)
  cmake_parse_arguments(ARG "LOOPS" "" "SOURCES;DEPENDS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  set(level -O1)  # half the time to build
  if(MILLRACE_SANITIZE AND NOT ARG_LOOPS)
    set(level -O0)  # and half of that under a sanitizer
  endif()
  target_compile_options(${name} PRIVATE ${level})
  millrace_unite(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPENDS} GTest::gmock GTest::gtest_main millrace_flags)
  if(MILLRACE_SANITIZE)  # one process: hundreds of starts under a sanitizer cost more than the tests
    add_test(NAME ${name} COMMAND ${name} --gtest_brief=1)
    set_tests_properties(${name} PROPERTIES TIMEOUT 1200 LABELS "${ARG_LABELS}")
  else()
    gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 300 LABELS "${ARG_LABELS}")
  endif()
endfunction()
