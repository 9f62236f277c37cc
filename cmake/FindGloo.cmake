# Gloo by its library and header; Debian has it in libgloo-dev.
find_path(Gloo_INCLUDE_DIR gloo/config.h)
find_library(Gloo_LIBRARY gloo)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Gloo REQUIRED_VARS Gloo_LIBRARY Gloo_INCLUDE_DIR)
if(Gloo_FOUND AND NOT TARGET Gloo::Gloo)
  add_library(Gloo::Gloo UNKNOWN IMPORTED)
  # Imported targets' headers are system headers: Gloo's warn.
  set_target_properties(Gloo::Gloo PROPERTIES
    IMPORTED_LOCATION "${Gloo_LIBRARY}" INTERFACE_INCLUDE_DIRECTORIES "${Gloo_INCLUDE_DIR}")
endif()
