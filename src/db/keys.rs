use crate::error::Fault; pub struct Keys; pub struct Pair{pub cert_pem:String,pub key_pem:String}
impl Keys { pub fn ca_pem(&self)->String{String::new()} pub fn client(&self,_:&str)->Result<Pair,Fault>{ Err(Fault::new("x"))} }
