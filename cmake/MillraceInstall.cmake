# The package: find_package(millrace) gives millrace::millrace, all of the library as one target.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

add_library(millrace_all INTERFACE)
add_library(millrace::millrace ALIAS millrace_all)
set_target_properties(millrace_all PROPERTIES EXPORT_NAME millrace)
target_link_libraries(millrace_all INTERFACE millrace::pipeline)
target_include_directories(millrace_all INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)

get_property(libraries GLOBAL PROPERTY MILLRACE_LIBRARIES)
install(TARGETS ${libraries} millrace_all EXPORT millraceTargets)
foreach(folder base tensor autograd nn distributed dataio pipeline)
  # What the kernels of a device share is the library's own.
  install(DIRECTORY ${folder}/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/millrace/${folder} FILES_MATCHING PATTERN "*.h"
    PATTERN "cpu" EXCLUDE PATTERN "cuda" EXCLUDE PATTERN "files" EXCLUDE)
endforeach()
install(FILES ${PROJECT_BINARY_DIR}/generated/tensor/config.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/millrace/tensor)
install(FILES millrace.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/millrace)

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/millrace)
configure_package_config_file(cmake/millraceConfig.cmake.in ${PROJECT_BINARY_DIR}/millraceConfig.cmake
  INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/millraceConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/millraceConfig.cmake ${PROJECT_BINARY_DIR}/millraceConfigVersion.cmake
  cmake/FindCUDNN.cmake cmake/FindGloo.cmake cmake/FindOneDNN.cmake cmake/FindOpenCV.cmake DESTINATION ${package_folder})
install(EXPORT millraceTargets NAMESPACE millrace:: DESTINATION ${package_folder})
