# find_package(vlart CONFIG): the targets vlart::vlart (shared) and vlart::static.
get_filename_component(VLART_PREFIX "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
if(NOT TARGET vlart::vlart)
  add_library(vlart::vlart SHARED IMPORTED)
  set_target_properties(vlart::vlart PROPERTIES IMPORTED_LOCATION "${VLART_PREFIX}/lib/libvlart.so"
                        IMPORTED_NO_SONAME TRUE INTERFACE_INCLUDE_DIRECTORIES "${VLART_PREFIX}/include")
  add_library(vlart::static STATIC IMPORTED)
  set_target_properties(vlart::static PROPERTIES IMPORTED_LOCATION "${VLART_PREFIX}/lib/libvlart.a"
                        INTERFACE_INCLUDE_DIRECTORIES "${VLART_PREFIX}/include"
                        INTERFACE_LINK_LIBRARIES "${CMAKE_DL_LIBS};m")
endif()
