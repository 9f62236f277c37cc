# OpenCV by its libraries and headers, one target a component: Debian's own config comes with libopencv-dev alone,
# which pulls in the windows, the cameras and 300 more packages.
find_path(OpenCV_INCLUDE_DIR opencv2/core.hpp PATH_SUFFIXES opencv4)
set(_required OpenCV_INCLUDE_DIR)
foreach(component ${OpenCV_FIND_COMPONENTS})
  find_library(OpenCV_${component}_LIBRARY opencv_${component})
  list(APPEND _required OpenCV_${component}_LIBRARY)
endforeach()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OpenCV REQUIRED_VARS ${_required})
if(OpenCV_FOUND)
  foreach(component ${OpenCV_FIND_COMPONENTS})
    if(NOT TARGET OpenCV::${component})
      add_library(OpenCV::${component} UNKNOWN IMPORTED)
      # Imported targets' headers are system headers: OpenCV's warn under C++20.
      set_target_properties(OpenCV::${component} PROPERTIES
        IMPORTED_LOCATION "${OpenCV_${component}_LIBRARY}" INTERFACE_INCLUDE_DIRECTORIES "${OpenCV_INCLUDE_DIR}")
    endif()
  endforeach()
endif()
